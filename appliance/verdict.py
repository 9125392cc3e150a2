"""One verdict as a flat row of the log, and as the schema-1 document that the line reads."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from appliance.decide import Decision
from appliance.frame import Frame
from appliance.times import utc_text
from engines import CLASSES, Measurement
from kernels import IMAGE_SIDE

SCHEMA = 1
Row = dict[str, Any]
_P_COLUMNS = tuple(f"p_{name.lower()}" for name in CLASSES)
DIGITS = 6


def now_utc() -> str:
    """The time as 2026-01-31T12:00:00.000Z."""
    return utc_text(dt.datetime.now(dt.UTC))


def verdict_row(
    frame: Frame, measurement: Measurement | None, decision: Decision, *, bundle: tuple[str, str],
    unseen: tuple[float, float], ms: Mapping[str, float],
) -> Row:  # fmt: skip
    """All columns of a verdict but seq and frame_id. What was not measured is None.

    Args:
        frame, measurement, decision: of one frame.
        bundle: identities of the bundle and the engine that were asked.
        unseen: t and alpha.
        ms: decode, inspect and total, milliseconds.
    """
    row: Row = {
        "path": frame.identity.path, "name": frame.identity.name, "sha256": frame.sha256,
        "product": frame.identity.product, "lot": frame.identity.lot, "wafer": frame.identity.wafer,
        "die_x": frame.identity.die[0] if frame.identity.die else None,
        "die_y": frame.identity.die[1] if frame.identity.die else None,
        "verdict": decision.verdict.value, "hard": decision.verdict.hard_bin, "reason": decision.reason,
        "spec": decision.spec, "bundle": bundle[0], "engine": bundle[1], "decided_at": now_utc(),
        "ms_decode": round(ms["decode"], 3), "ms_inspect": round(ms["inspect"], 3), "ms_total": round(ms["total"], 3),
    }  # fmt: skip
    row |= _measured(measurement, frame, unseen)
    return row


def _measured(measurement: Measurement | None, frame: Frame, unseen: tuple[float, float]) -> Row:
    inspection = measurement.inspection if measurement else None
    noise = measurement.noise if measurement else None
    metrics = measurement.unseen if measurement else None
    row: Row = dict.fromkeys((*_P_COLUMNS, "class", "soft", "p_ng", "level", "score"))
    if inspection is not None:
        row |= {column: round(p, DIGITS) for column, p in zip(_P_COLUMNS, inspection.p, strict=True)}
        row |= {"class": inspection.class_name, "soft": inspection.class_name, "p_ng": round(inspection.p_ng, DIGITS),
                "level": round(inspection.level, DIGITS), "score": round(inspection.score, DIGITS)}  # fmt: skip
    row |= {
        "noise_median": round(noise.median_dn, DIGITS) if noise else None,
        "noise_sigma": round(noise.sigma_dn, DIGITS) if noise else None,
        "t": unseen[0] if metrics else None,
        "alpha": unseen[1] if metrics else None,
        "m_thresh": metrics.m_thresh if metrics else None,
        "m_alpha": round(metrics.m_alpha, DIGITS) if metrics else None,
        "rois": json.dumps(_regions(measurement, frame)) if measurement and metrics else None,
        "histogram": metrics.histogram.astype("<u4").tobytes() if metrics else None,
    }
    return row


def _regions(measurement: Measurement, frame: Frame) -> list[dict[str, Any]]:
    """Regions with boxes in pixels of the frame."""
    if frame.raw is None:
        return []
    sx, sy = frame.raw.width / IMAGE_SIDE, frame.raw.height / IMAGE_SIDE
    return [
        {
            "box": [round(r.box[0] * sx), round(r.box[1] * sy), round(r.box[2] * sx), round(r.box[3] * sy)],
            "score": round(r.score, 3), "peak": round(r.peak, 3), "pixels": r.pixels,
        }
        for r in measurement.regions
    ]  # fmt: skip


def per_pixel(row: Mapping[str, Any]) -> dict[str, float] | None:
    """M_thresh and M_alpha divided by the pixels of the unseen map; None where it was not measured."""
    if row["t"] is None:
        return None
    return {name: round(row[name] / IMAGE_SIDE**2, 9) for name in ("m_thresh", "m_alpha")}


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    """The schema-1 document of a row. Its fields and their order are a contract (docs/verdict.md)."""
    measured, noisy = row["t"] is not None, row["noise_sigma"] is not None
    die = None if row["die_x"] is None else [row["die_x"], row["die_y"]]
    p = None if row["p_ok"] is None else {name: row[c] for name, c in zip(CLASSES, _P_COLUMNS, strict=True)}
    unseen = {"m_thresh": row["m_thresh"], "m_alpha": row["m_alpha"], "t": row["t"], "alpha": row["alpha"],
              "rois": len(json.loads(row["rois"]))} if measured else None  # fmt: skip
    return {
        "schema": SCHEMA,
        "seq": row.get("seq"),
        "frame": row["name"],
        "sha256": row["sha256"],
        "product": row["product"],
        "lot": row["lot"],
        "wafer": row["wafer"],
        "die": die,
        "verdict": row["verdict"],
        "bin": {"hard": row["hard"], "soft": row["soft"]},
        "reason": row["reason"],
        "class": row["class"],
        "p": p,
        "p_ng": row["p_ng"],
        "level": row["level"],
        "score": row["score"],
        "spec": row["spec"],
        "unseen": unseen,
        "noise": {"median": row["noise_median"], "sigma": row["noise_sigma"]} if noisy else None,
        "bundle": row["bundle"],
        "engine": row["engine"],
        "decided_at": row["decided_at"],
        "ms": {"decode": row["ms_decode"], "inspect": row["ms_inspect"], "total": row["ms_total"]},
    }
