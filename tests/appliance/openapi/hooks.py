"""What schemathesis may not know: a request that waits for a verdict is no error, but takes its time."""

from __future__ import annotations

from typing import Any

import schemathesis

LONGEST_WAIT_S = 60


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Wait for nothing, where waiting is asked for as it may be."""
    wait = (case.query or {}).get("wait")
    try:
        asked = float(wait) if isinstance(wait, str | int | float) and not isinstance(wait, bool) else 0.0
    except ValueError:
        return
    if 0 < asked <= LONGEST_WAIT_S:
        case.query["wait"] = "0"


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """An empty list is not sent at all: such a query is not the wrong one that it is taken for."""
    return not any(value == [] for value in (case.query or {}).values())
