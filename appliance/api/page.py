"""/: the station at a glance."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from appliance.api.access import ReadersOf, StationOf, open_log
from appliance.api.health import status_of
from appliance.verdict import Row

NEWEST = 50
router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
.PASS { color: #1a7f37; } .FAIL { color: #cf222e; } .RETEST { color: #9a6700; } td img { width: 56px; display: block; }
@media (prefers-color-scheme: dark) { .PASS { color: #4ac26b; } .FAIL { color: #ff7b72; } .RETEST { color: #e3b341; } }
"""


def _row(row: Row) -> str:
    def number(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    picture = (
        f'<img loading="lazy" alt="stretched frame" src="/v1/frames/{row["frame_id"]}/image.png">'
        if row["noise_sigma"]
        else ""
    )
    cells = (
        f'<a href="/v1/verdicts/{row["seq"]}">{row["seq"]}</a>', picture, escape(f"{row['product']}/{row['lot']}"),
        escape(row["name"]), f'<strong class="{row["verdict"]}">{row["verdict"]}</strong>', escape(row["class"] or "–"),
        number(row["level"], 1), number(row["score"], 3), number(row["spec"], 3), number(row["m_alpha"], 1),
        escape(row["reason"] or ""), row["decided_at"],
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


@router.get("/", response_class=HTMLResponse)
def page(station: StationOf, readers: ReadersOf) -> HTMLResponse:
    """Readiness, counts and the newest verdicts; looks again every five seconds."""
    now = status_of(station, readers)
    try:
        with open_log(readers) as log:
            newest = log.verdicts(limit=NEWEST, newest=True)
    except HTTPException:
        newest = []
    facts = {
        "State": "ready" if now["ready"] else "not ready: " + "; ".join(now["reasons"]),
        "Bundle": now["bundle"] or "–", "Engine": now["engine"] or "–", "Backlog": now["backlog"],
        "Rate": f"{now['frames_per_s'] or 0:.1f} frames/s",
        "Verdicts": ", ".join(f"{count} {verdict}" for verdict, count in (now["counts"] or {}).items()),
    }  # fmt: skip
    head = (
        "seq",
        "image",
        "product/lot",
        "frame",
        "verdict",
        "class",
        "level",
        "score",
        "limit",
        "unseen",
        "reason",
        "decided at",
    )
    body = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Umbra</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="5"><style>{_STYLE}</style></head><body>
<h1>Umbra: station {escape(str(now["station"]))}</h1>
<dl>{"".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())}</dl>
<div class="scroll"><table><thead><tr>{"".join(f"<th>{h}</th>" for h in head)}</tr></thead>
<tbody>{"".join(_row(row) for row in newest)}</tbody></table></div>
<p><a href="/openapi.json">API</a> · <a href="/v1/verdicts.csv">all verdicts as CSV</a> · <a href="/metrics">metrics</a></p>
</body></html>"""
    return HTMLResponse(body)
