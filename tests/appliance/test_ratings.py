"""Blind ratings in the log: which frames, in which order, what counts, and that nothing of them is forgotten."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from appliance import ratings
from appliance.ratings import RatingError
from appliance.verdict_log import VerdictLog
from tests.appliance.test_decide import frame
from tests.appliance.test_verdict_log import row_of


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    """Forty frames: thirty of level 1, eight of level 5, two that failed."""
    made = VerdictLog(tmp_path / "umbra.db")
    for number in range(40):
        level, class_name = (10.0, "Error") if number >= 38 else (5.2, "Spot") if number >= 30 else (1.0, "OK")
        row = row_of(f"P{number % 2}/L/{number}.tif", f"{number:064d}") | {"level": level, "class": class_name}
        made.record(frame(), row)
    return made


def test_frames_are_spread_over_the_levels(log: VerdictLog) -> None:
    levels = {row["frame_id"]: row["level"] for row in log.verdicts()}
    chosen = ratings.spread(log, 12)
    assert Counter(levels[f] for f in chosen) == {1.0: 6, 5.2: 6}
    assert Counter(levels[f] for f in ratings.spread(log, 100)) == {1.0: 30, 5.2: 8}, "none that failed"
    assert ratings.spread(log, 12) == chosen != ratings.spread(log, 12, seed=1)
    products = {row["frame_id"]: row["product"] for row in log.verdicts()}
    assert {products[f] for f in ratings.spread(log, 12, product="P1")} == {"P1"}
    assert ratings.spread(log, 12, product="none") == []


def test_each_rater_has_an_order_of_their_own_that_stays(log: VerdictLog) -> None:
    session = ratings.start(log, "s", ratings.spread(log, 20), who="jo")
    orders = [ratings.order_of(log, session, rater) for rater in ("ada", "bo", "ada")]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_the_last_score_of_a_rater_counts(log: VerdictLog) -> None:
    frames = ratings.spread(log, 4)
    session = ratings.start(log, "s", frames, who="jo")
    for score in (3.0, 7.0):
        ratings.rate(log, session, frames[0], rater="ada", score=score)
    ratings.rate(log, session, frames[0], rater="bo", score=5.0)
    assert {(row["rater"], row["score"]) for row in ratings.scores(log, session)} == {("ada", 7.0), ("bo", 5.0)}
    [told] = ratings.sessions(log)
    assert (told["frames"], told["raters"], told["ratings"]) == (4, 2, 2)
    assert ratings.result(log, session) is None, "one level so far"
    for frame_id in frames:
        ratings.rate(log, session, frame_id, rater="ada", score=2.0)
    found = ratings.result(log, session)
    assert found is not None
    assert (found["frames"], found["raters"], set(found["mos_by_level"])) == (4, 2, {"1", "5"})


@pytest.mark.parametrize(("offset", "score"), [(0, 10.5), (0, -1.0), (1000, 5.0)])
def test_what_is_no_rating_is_refused(log: VerdictLog, offset: int, score: float) -> None:
    frames = ratings.spread(log, 2)
    session = ratings.start(log, "s", frames, who="jo")
    with pytest.raises(RatingError):
        ratings.rate(log, session, frames[0] + offset, rater="ada", score=score)
    for wrong in ([], [1, 1]):
        with pytest.raises(RatingError, match="wanted 1 to 1000, each once"):
            ratings.start(log, "s", wrong, who="jo")


def test_ratings_are_append_only_and_their_frames_stay(log: VerdictLog) -> None:
    frames = ratings.spread(log, 3)
    session = ratings.start(log, "s", frames, who="jo")
    ratings.rate(log, session, frames[0], rater="ada", score=3.0)
    for sql in ("DELETE FROM ratings", "UPDATE ratings SET score = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            log.database.conn.execute(sql)
    assert log.frames_that_stay() == set(frames)
    log.forget("2999-01-01T00:00:00.000Z", chunk=10)
    assert {row["frame_id"] for row in log.verdicts()} == set(frames)
