"""Where the time goes on a GPU: the stretch kernel by kernel, and the way of a frame part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def picture(found: dict[str, Any], path: Path) -> None:
    """Draw what was measured.

    Args:
        found: as `make bench-gpu` keeps it.
        path: of a PNG.
    """
    from matplotlib.figure import Figure

    rows = {name: row for name, row in found.get("inspectors", {}).items() if "alone_ms" in row}
    room = max(4.0, 0.3 * len(rows))
    figure = Figure(figsize=(9, 4 + room), layout="constrained")
    kernels, way = figure.subplots(2, height_ratios=(4, room))
    _stacked(kernels, {
        f"{name}: {row['share_of_copy']:.0%} of a copy": row["steps_ms"]
        for name, row in found["kernels"].items() if "steps_ms" in row
    })  # fmt: skip
    kernels.set(xlabel="ms a batch", title=f"{found['gpu']}: the stretch, kernel by kernel")
    _stacked(way, {f"{name}: {row['share_of_limit']:.0%} of the limit": row["alone_ms"] for name, row in rows.items()})
    way.plot([row["ms"] for row in rows.values()], range(len(rows)), "k|", markersize=12, label="all of it, overlapped")
    way.set(xlabel="ms a frame", title="the way of a frame: its parts alone, and measured as a whole")
    for axes in (kernels, way):
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            axes.legend(handles, labels, fontsize=7, ncols=3)
    figure.savefig(path, dpi=120)


def _stacked(axes: Axes, bars: dict[str, dict[str, float]]) -> None:
    """One bar a row, of its parts."""
    parts = list(dict.fromkeys(part for row in bars.values() for part in row))
    for y, row in enumerate(bars.values()):
        left = 0.0
        for part, ms in row.items():
            label = part.removeprefix("stretch_") if y == 0 else None
            axes.barh(y, ms, left=left, color=f"C{parts.index(part)}", label=label)
            left += ms
    axes.set_yticks(range(len(bars)), list(bars), fontsize=7)
    axes.invert_yaxis()
