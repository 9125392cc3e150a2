"""Pictures are drawn from a report's own numbers; a look at them is a person's task."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.training.evaluate import evaluate
from engines.training.pictures import draw_curve, draw_report
from tests.engines.test_evaluate import judged


def test_each_table_becomes_a_picture(tmp_path: Path) -> None:
    frames = [
        judged("OK", "OK", level=level / 10, found=level / 9, sensor=sensor) for level in range(20) for sensor in "AB"
    ] + [
        judged("Spot", "Spot", level=level, found=level + 0.3, sensor=sensor) for level in (4, 6, 8) for sensor in "AB"
    ]
    report = evaluate(frames, np.zeros(len(frames), bool), spec=0.3)
    drawn = draw_report({**report, "bundle": "starter@0"}, tmp_path / "report")
    assert [path.name for path in drawn] == ["sensors.png", "confusion.png", "scores.png", "levels.png"]
    for path in drawn:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 10


def test_a_frame_without_ratings_has_no_level_picture(tmp_path: Path) -> None:
    frames = [judged("OK", None), judged("Spot", None)]
    report = evaluate(frames, np.zeros(2, bool), spec=0.3)
    assert "levels.png" not in {path.name for path in draw_report(report, tmp_path)}


def test_a_curve_is_drawn_from_its_file(tmp_path: Path) -> None:
    curve = tmp_path / "curve.csv"
    curve.write_text("stage,side,images,seconds,loss,rate,f1\n0,64,100,1,0.9,0.001,\n0,64,200,2,0.5,0.001,0.8\n")
    picture = cv2.imread(str(draw_curve(curve, tmp_path / "curve.png")))
    assert picture is not None
    assert picture.std() > 5
    with pytest.raises(IndexError):
        (tmp_path / "empty.csv").write_text("stage\n")
        draw_curve(tmp_path / "empty.csv", tmp_path / "empty.png")
