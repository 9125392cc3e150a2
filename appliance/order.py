"""What to label next, as a question: which frames, in which order."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MOST_DIVERSE = 1000  # frames of a diverse order; the picture of each is read


class Metric(enum.StrEnum):
    """What frames are ordered by, largest first."""

    M_ALPHA = "m_alpha"
    M_THRESH = "m_thresh"
    ROIS = "rois"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which frames, in which order.

    Attributes:
        metric: of the order.
        count, offset: a page of it.
        diverse: leave out frames that show what one before them shows, and take those that stand for most of the others;
            the order ends after a thousand.
        product, lot: only these; None: all.
        labeled: those too that a person has labeled.
    """

    metric: Metric = Metric.M_ALPHA
    count: int = 10
    offset: int = 0
    diverse: bool = False
    product: str | None = None
    lot: str | None = None
    labeled: bool = False
