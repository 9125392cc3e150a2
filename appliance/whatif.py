"""What another limit would have done to the frames in the log."""

from __future__ import annotations

from typing import Any

from appliance.verdict_log import VerdictLog

_SQL = """
WITH newest AS (SELECT frame_id, MAX(seq) AS seq FROM verdicts GROUP BY frame_id),
     named AS (SELECT frame_id, class, MAX(id) FROM labels WHERE class IS NOT NULL GROUP BY frame_id)
SELECT v.verdict, v.class = 'Error' AS failed, v.score > ? AS above, named.class AS label, COUNT(*) AS n
FROM newest JOIN verdicts v ON v.seq = newest.seq JOIN frames f ON f.id = v.frame_id
LEFT JOIN named ON named.frame_id = v.frame_id
WHERE v.score IS NOT NULL AND (? IS NULL OR f.product = ?)
GROUP BY 1, 2, 3, 4
"""


def what_if(log: VerdictLog, spec: float, *, product: str | None = None) -> dict[str, Any]:
    """Counts of PASS and FAIL under another limit, beside those that were given, and errors against labels.

    Frames that were not measured, and those of class Error, keep their verdict whatever the limit.
    """
    before, after = {"PASS": 0, "FAIL": 0, "RETEST": 0}, {"PASS": 0, "FAIL": 0, "RETEST": 0}
    labelled, overkill, escapes = 0, 0, 0
    for row in log.database.query(_SQL, (spec, product, product)):
        verdict = row["verdict"] if row["failed"] else ("FAIL" if row["above"] else "PASS")
        before[row["verdict"]] += row["n"]
        after[verdict] += row["n"]
        if row["label"] is not None:
            labelled += row["n"]
            overkill += row["n"] * (row["label"] == "OK" and verdict != "PASS")
            escapes += row["n"] * (row["label"] != "OK" and verdict == "PASS")
    return {"spec": spec, "product": product, "given": before, "would": after,
            "labelled": labelled, "overkill": overkill, "escapes": escapes}  # fmt: skip
