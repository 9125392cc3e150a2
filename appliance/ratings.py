"""Blind rating sessions: many raters score the same frames, each in an order of their own, and levels are held against them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from appliance.verdict import Row, now_utc
from appliance.verdict_log import VerdictLog
from engines.training.agreement import FAILED_LEVEL, Opinion, agreement

MOST_FRAMES = 1000
_SESSIONS = """
SELECT s.*, (SELECT COUNT(*) FROM rating_frames f WHERE f.session_id = s.id) AS frames,
    (SELECT COUNT(DISTINCT rater) FROM ratings r WHERE r.session_id = s.id) AS raters,
    (SELECT COUNT(*) FROM (SELECT DISTINCT rater, frame_id FROM ratings r WHERE r.session_id = s.id)) AS ratings
FROM rating_sessions s WHERE (? IS NULL OR s.id = ?) ORDER BY s.id DESC
"""
# Of a group the columns beside MAX are those of its newest row.
_SCORES = """
SELECT rater, frame_id, score, MAX(id) AS id FROM ratings WHERE session_id = ? AND (? IS NULL OR rater = ?) GROUP BY rater, frame_id
"""
_LEVELS = """
SELECT v.frame_id, MAX(v.seq), v.level FROM verdicts v {} WHERE v.level IS NOT NULL AND v.class IS NOT 'Error' GROUP BY v.frame_id
"""
_IN_SESSION = "JOIN rating_frames r ON r.frame_id = v.frame_id AND r.session_id = ?"


class RatingError(ValueError):
    """A session, frame or score is not what it should be."""


def sessions(log: VerdictLog, session: int | None = None) -> list[Row]:
    """All sessions, newest first, or one: id, name, who, at, and how many frames, raters and scores it has."""
    return log.select(_SESSIONS, (session, session))


def start(log: VerdictLog, name: str, frames: Sequence[int], *, who: str) -> int:
    """Begin a session over frames of the log; its number.

    Raises:
        RatingError: no frames, too many, or one twice.
    """
    if not 0 < len(frames) <= MOST_FRAMES or len(set(frames)) < len(frames):
        raise RatingError(f"{len(frames)} frames, {len(set(frames))} different; wanted 1 to {MOST_FRAMES}, each once")
    with log.transaction() as db:
        values = (name, who, now_utc())
        number = int(db.execute("INSERT INTO rating_sessions (name, who, at) VALUES (?, ?, ?)", values).lastrowid or 0)
        db.executemany("INSERT INTO rating_frames VALUES (?, ?)", [(number, frame) for frame in frames])
    return number


def spread(
    log: VerdictLog, count: int, *, shown: Collection[int] | None = None, product: str | None = None, seed: int = 0
) -> list[int]:
    """Frames for a session: as many of each rounded level as can be had, drawn by chance; failed captures are left out.

    Args:
        log: of the station.
        count: at most so many.
        shown: frames whose pictures are kept; None: all are.
        product: only this one; None: all.
        seed: the same draws the same.
    """
    by_level: dict[int, list[int]] = defaultdict(list)
    frames = {
        row["id"] for row in log.select("SELECT id FROM frames WHERE ? IS NULL OR product = ?", (product, product))
    }
    if shown is not None:
        frames &= set(shown)
    for row in log.select(_LEVELS.format("")):
        if row["frame_id"] in frames and round(row["level"]) < FAILED_LEVEL:
            by_level[round(row["level"])].append(row["frame_id"])
    draw = random.Random(seed)  # noqa: S311  (a sample)
    for of_level in by_level.values():
        draw.shuffle(of_level)
    chosen: list[int] = []
    while len(chosen) < count and any(by_level.values()):
        for level in sorted(by_level):
            if by_level[level] and len(chosen) < count:
                chosen.append(by_level[level].pop())
    return chosen


def order_of(log: VerdictLog, session: int, rater: str) -> list[int]:
    """The frames of a session in the order in which one rater sees them; it is nobody else's."""
    rows = log.select("SELECT frame_id FROM rating_frames WHERE session_id = ? ORDER BY frame_id", (session,))
    frames = [row["frame_id"] for row in rows]
    random.Random(f"{session} {rater}").shuffle(frames)  # noqa: S311  (an order)
    return frames


def scores(log: VerdictLog, session: int, rater: str | None = None) -> list[Row]:
    """The last score of each rater on each frame: rater, frame_id, score."""
    return log.select(_SCORES, (session, rater, rater))


def rate(log: VerdictLog, session: int, frame_id: int, *, rater: str, score: float) -> None:
    """Append a score; the last one of a rater on a frame counts.

    Raises:
        RatingError: the frame is not in the session, or the score is outside 0..10.
    """
    if not 0 <= score <= 10:
        raise RatingError(f"score {score}, wanted 0..10")
    if frame_id not in order_of(log, session, rater):
        raise RatingError(f"frame {frame_id} is not in session {session}")
    with log.transaction() as db:
        values = (session, frame_id, rater, score, now_utc())
        db.execute("INSERT INTO ratings (session_id, frame_id, rater, score, at) VALUES (?, ?, ?, ?, ?)", values)


def result(log: VerdictLog, session: int) -> dict[str, Any] | None:
    """Levels against mean opinion scores, as `engines.training.agreement` tells it; None while there are too few."""
    levels = {row["frame_id"]: round(row["level"]) for row in log.select(_LEVELS.format(_IN_SESSION), (session,))}
    opinions = [
        Opinion(str(row["frame_id"]), levels[row["frame_id"]], row["rater"], row["score"])
        for row in scores(log, session)
        if row["frame_id"] in levels
    ]
    try:
        return agreement(opinions)
    except ValueError:
        return None  # fewer than two levels so far
