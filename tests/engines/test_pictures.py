"""Pictures show a report's own numbers; how they look is a person's task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engines.training import pictures
from engines.training.evaluate import evaluate
from engines.training.pictures import draw_curve, draw_report
from tests.engines.test_evaluate import judged


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures as they are saved, by file name."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path) -> Path:
        figures[path.name] = figure
        return save(figure, path)

    save = pictures._save
    monkeypatch.setattr(pictures, "_save", keep)
    return figures


def heights_of(axes: Axes) -> list[float]:
    """Of the bars in the order they were drawn."""
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_pictures_show_the_numbers_of_the_report(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    frames = [
        judged("OK", "OK", level=level / 10, found=level / 9, sensor=sensor) for level in range(20) for sensor in "AB"
    ] + [
        judged("Spot", "Spot" if level < 8 else "OK", level=level, found=level + 0.3, sensor=sensor)
        for level in (4, 6, 8)
        for sensor in "AB"
    ]
    report = {**evaluate(frames, np.zeros(len(frames), bool), spec=0.3), "bundle": "starter@0"}
    paths = draw_report(report, tmp_path / "report")
    assert [path.name for path in paths] == ["sensors.png", "confusion.png", "scores.png", "levels.png"] == list(drawn)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)

    accuracy, f1 = drawn["sensors.png"].axes
    old, new = [20 / 23] * 3, [22 / 23] * 3  # sensors A, B and all
    assert heights_of(accuracy) == pytest.approx([*old, *new])
    assert heights_of(f1) == pytest.approx([0, 0, 0, 0.8, 0.8, 0.8])

    cells = [text.get_text() for text in drawn["confusion.png"].axes[0].texts]
    assert cells[:5] == ["40", "0", "0", "0", "0"]
    assert cells[5:10] == ["2", "4", "0", "0", "0"]

    levels = drawn["levels.png"].axes[0]
    assert [tick.get_text() for tick in levels.get_xticklabels()] == ["0\n12", "1\n18", "2\n10", "4\n2", "6\n2", "8\n2"]
    assert "MAE" in levels.get_title()
    specs = [line for line in drawn["scores.png"].axes[1].lines if np.asarray(line.get_ydata()).tolist() == [0.3, 0.3]]
    assert len(specs) == 1


def test_a_frame_without_ratings_has_no_level_picture(tmp_path: Path) -> None:
    frames = [judged("OK", None), judged("Spot", None)]
    report = evaluate(frames, np.zeros(2, bool), spec=0.3)
    assert "levels.png" not in {path.name for path in draw_report(report, tmp_path)}


def test_a_curve_is_drawn_from_its_file(tmp_path: Path, drawn: dict[str, Figure]) -> None:
    curve = tmp_path / "curve.csv"
    curve.write_text("stage,side,images,seconds,loss,rate,f1\n0,64,100,1,0.9,0.001,\n0,64,200,2,0.5,0.001,0.8\n")
    draw_curve(curve, tmp_path / "curve.png")
    loss, scores = drawn["curve.png"].axes
    assert [np.asarray(line.get_ydata()).tolist() for line in loss.lines] == [[0.9, 0.5]]
    assert [(line.get_label(), np.asarray(line.get_xdata()).tolist()) for line in scores.lines] == [("f1", [200])]
