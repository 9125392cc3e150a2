"""Repeatability: numbers that are known, and a real station that judges the same frames again and again."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import RefusedError
from appliance.gauge import Trial, fleiss_kappa, gauge, spread_of_scores, trials_of
from appliance.parts import Part
from appliance.reading import UNREAD
from appliance.settings import SETTINGS_FILE
from appliance.station import Station
from appliance.support import write
from appliance.verdict_log import VerdictLog
from tests.appliance.test_cli import umbra
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of


def trial(part: int, verdict: str, score: float | None = 0.1, *, station: str = "a", spec: float = 0.3) -> Trial:
    return Trial(station, (part,), verdict, score, spec)


def test_kappa_is_that_of_the_published_example() -> None:
    """Fleiss 1971 as worked in textbooks: 10 subjects, 14 raters, 5 categories, kappa 0.210."""
    table = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    kappa = fleiss_kappa([Counter({str(j): n for j, n in enumerate(row)}) for row in table])
    assert kappa == pytest.approx(0.210, abs=5e-4)


def test_kappa_at_its_ends() -> None:
    assert fleiss_kappa([Counter(PASS=3), Counter(FAIL=2)]) == 1
    assert fleiss_kappa([Counter(PASS=1, FAIL=1)] * 5) == -1
    assert fleiss_kappa([Counter(PASS=4)]) is None
    assert fleiss_kappa([Counter(PASS=1), Counter(FAIL=1)]) is None
    chance = np.random.default_rng(0).integers(0, 2, (20_000, 2))
    assert fleiss_kappa([Counter(map(str, row)) for row in chance]) == pytest.approx(0, abs=0.02)


def test_the_spread_of_scores_is_found_again() -> None:
    rng = np.random.default_rng(1)
    stations = rng.normal(0, 0.02, (400, 3))
    parts = [
        [
            trial(p, "PASS", float(level + stations[p, s] + rng.normal(0, 0.01)), station=f"s{s}")
            for s in range(3)
            for _ in range(5)
        ]
        for p, level in enumerate(rng.normal(0.5, 0.1, 400))
    ]
    found = spread_of_scores(parts)
    assert found["repeatability"] == pytest.approx(0.01, rel=0.05)
    assert found["reproducibility"] == pytest.approx(0.02, rel=0.07)
    assert found["parts"] == pytest.approx(0.1, rel=0.1)
    assert found["gauge_share"] == pytest.approx(0.0005 / 0.0105, rel=0.2)


def study(cells: list[list[int]], *, repeat: float, station: float, part: float, seed: int) -> list[list[Trial]]:
    """Trials of each part on each station, so many as its cells say, with known spreads."""
    rng = np.random.default_rng(seed)
    return [
        [
            trial(number, "PASS", float(level + of_station + rng.normal(0, repeat)), station=f"s{s}")
            for s, (count, of_station) in enumerate(zip(counts, rng.normal(0, station, len(counts)), strict=True))
            for _ in range(count)
        ]
        for number, (counts, level) in enumerate(zip(cells, rng.normal(0.5, part, len(cells)), strict=True))
    ]


@pytest.mark.parametrize("cells", [[1, 9], [1, 1], [2, 5, 1]])
def test_unequal_numbers_of_trials_make_no_spread_of_their_own(cells: list[int]) -> None:
    found = spread_of_scores(study([cells, [30]] * 3000, repeat=0.01, station=0.0, part=0.1, seed=2))
    assert found["repeatability"] == pytest.approx(0.01, rel=0.02)
    assert (found["reproducibility"] or 0) < 0.0025
    found = spread_of_scores(study([cells, [30]] * 3000, repeat=0.01, station=0.02, part=0.1, seed=3))
    assert found["reproducibility"] == pytest.approx(0.02, rel=0.05)
    assert found["parts"] == pytest.approx(0.1, rel=0.03)


def test_without_parts_that_differ_the_gauge_makes_all_of_the_spread() -> None:
    found = spread_of_scores(study([[2]] * 3000, repeat=0.01, station=0.0, part=0.0, seed=4))
    assert (found["gauge_share"] or 0) > 0.9


def test_a_part_near_any_limit_that_was_applied_is_borderline() -> None:
    near = [trial(1, "PASS", 0.30, spec=0.305), trial(1, "PASS", 0.31, spec=0.9)]
    assert gauge(near)["borderline"]["near"] == 1


def test_verdicts_of_two_bundles_are_no_repeats_and_unread_files_no_part(station: Station) -> None:
    with closing(VerdictLog(station.database)) as log:
        for lot in "LM":
            log.record(frame(), row_of(f"P/{lot}/a.tif", "c" * 64))
            log.record(frame(), row_of(f"P/{lot}/b.tif", UNREAD))
        assert len(trials_of([station.root], by=Part.FRAME)) == 2
        log.record(frame(), row_of("P/L/a.tif", "c" * 64) | {"bundle": "other@1"})
    with pytest.raises(RefusedError, match="verdicts of 2 bundles: choose one by --bundle: b@1, other@1"):
        trials_of([station.root], by=Part.FRAME)
    assert len(trials_of([station.root], by=Part.FRAME, bundle="other@1")) == 1


def test_agreement_is_counted_within_and_between_stations() -> None:
    trials = [
        *(trial(1, v) for v in ("PASS", "PASS", "PASS")), *(trial(1, v, station="b") for v in ("PASS", "PASS")),
        *(trial(2, v, 0.31) for v in ("FAIL", "PASS", "FAIL")), *(trial(2, v, 0.29, station="b") for v in ("PASS", "PASS")),
        *(trial(3, v, None) for v in ("RETEST", "RETEST")), trial(4, "FAIL", 0.9),
    ]  # fmt: skip
    found = gauge(trials)
    assert (found["parts"], found["judged_once"], found["trials"]) == (3, 1, 12)
    assert (found["stations"]["a"]["alike"], found["stations"]["a"]["parts"]) == (2, 3)
    assert (found["stations"]["b"]["alike"], found["stations"]["b"]["parts"]) == (2, 2)
    assert (found["all"]["alike"], found["all"]["parts"]) == (2, 3)
    assert (found["between"]["alike"], found["between"]["parts"]) == (1, 2)
    assert found["borderline"]["flipped"] == 1
    assert (found["borderline"]["near"], found["borderline"]["measured"]) == (1, 2)


def test_nothing_judged_twice_is_said() -> None:
    with pytest.raises(RefusedError, match="1 parts, none of which was judged twice"):
        gauge([trial(1, "PASS")])


def test_the_same_frames_on_two_stations(station: Station, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    umbra("simulate", frames, "--sensor", "A,D", "--count", "4", "--megapixels", "0.1", "--seed", "3")
    other = tmp_path / "other"
    for place in (station.root, other):
        for turn in range(2):
            lot = tmp_path / f"{place.name}-{turn}" / "P" / f"turn{turn}"
            shutil.copytree(frames, lot)
            umbra("screen", lot.parents[1], "--station", place)
    found = json.loads(umbra("gauge", station.root, other, "--json").stdout)
    assert (found["parts"], found["trials"], found["all"]["alike"]) == (4, 16, 4)
    assert found["all"]["kappa"] in (None, 1)
    assert found["score"]["repeatability"] == 0
    assert found["between"]["share"] == 1
    printed = umbra("gauge", station.root, other, "--by", "name").stdout
    assert "on station" in printed
    assert "between stations" in printed
    by_die = json.loads(umbra("gauge", station.root, other, "--by", "die", "--json").stdout)
    assert by_die["trials"] == 16
    refused = umbra("gauge", station.root, station.root, expect=1)
    assert "one name" in refused.stderr


SECRET = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        f'[api]\ntoken_sha256 = "{SECRET}"\n',
        f'api = {{ "token_sha256" = "{SECRET}", port = 0 }}\n',
        f"api.token_sha256='{SECRET}'\n",
        f'password = "a,b}}{SECRET}"\n',
    ],
)
def test_a_secret_is_left_out_however_it_is_written(text: str, station: Station, tmp_path: Path) -> None:
    (station.root / SETTINGS_FILE).write_text(text)
    write(tmp_path / "s.tar.gz", station, "")
    with tarfile.open(tmp_path / "s.tar.gz") as archive:
        told = archive.extractfile("umbra-support/umbra.toml").read().decode()  # type: ignore[union-attr]
    assert SECRET not in told
    assert "(left out)" in told


def test_doctor_and_support_bundle_work_where_the_log_is_damaged(station: Station, tmp_path: Path) -> None:
    with closing(VerdictLog(station.database)) as log:
        for number in range(400):
            log.record(frame(), row_of(f"P/L/{number}.tif", f"{number:064d}"))
    with station.database.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * (station.database.stat().st_size - 3 * 4096))
    told = umbra("doctor", "--station", station.root, expect=1).stdout
    assert "broken database" in told
    assert "umbra restore" in told.replace("\n", " ")
    umbra("support-bundle", tmp_path / "s.tar.gz", "--station", station.root)
    with tarfile.open(tmp_path / "s.tar.gz") as archive:
        assert "umbra restore" in archive.extractfile("umbra-support/log.txt").read().decode()  # type: ignore[union-attr]
    refused = umbra("run", "--no-api", "--station", station.root, expect=1)
    assert "umbra restore" in refused.stderr


def test_a_support_bundle_tells_all_but_secrets_and_frames(station: Station, tmp_path: Path) -> None:
    text = (station.root / SETTINGS_FILE).read_text().replace("[api]\n", f'[api]\ntoken_sha256 = "{"ab" * 32}"\n')
    (station.root / SETTINGS_FILE).write_text(text)
    log = VerdictLog(station.database)
    row = log.record(frame(size=3), row_of("P/L/a.tif", "c" * 64))
    log.add_event("screener.started", bundle="starter@1")
    log.close()
    done = station.done / "P" / "L" / "a.tif"
    done.parent.mkdir(parents=True)
    done.write_bytes(b"raw")
    umbra("support-bundle", tmp_path / "s.tar.gz", "--station", station.root)
    with tarfile.open(tmp_path / "s.tar.gz") as archive:
        names = {Path(n).relative_to("umbra-support").as_posix() for n in archive.getnames()}
        content = {n: archive.extractfile(f"umbra-support/{n}").read().decode() for n in names}  # type: ignore[union-attr]
    assert names >= {
        "doctor.txt",
        "packages.txt",
        "umbra.toml",
        "events.jsonl",
        "log.json",
        "specs.jsonl",
        "bundles.jsonl",
    }
    assert not any(n.startswith("frames/") for n in names)
    assert "ab" * 32 not in "".join(content.values())
    assert "rescan_s" in content["umbra.toml"]
    assert "screener.started" in content["events.jsonl"]
    assert "openvino" in content["packages.txt"]
    assert "ok engines" in content["doctor.txt"]
    assert (
        "is there already" in umbra("support-bundle", tmp_path / "s.tar.gz", "--station", station.root, expect=1).stderr
    )
    umbra("support-bundle", tmp_path / "f.tar.gz", "--station", station.root, "--frame", str(row["frame_id"]))
    with tarfile.open(tmp_path / "f.tar.gz") as archive:
        assert archive.extractfile("umbra-support/frames/1/a.tif").read() == b"raw"  # type: ignore[union-attr]
    assert (
        "frame 99"
        in umbra("support-bundle", tmp_path / "g.tar.gz", "--station", station.root, "--frame", "99", expect=1).stderr
    )
    assert not list(tmp_path.glob("*g.tar.gz*"))
