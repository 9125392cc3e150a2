"""Labels as CSV: a row for each box, one with empty box columns for a label without boxes; history included."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.exchange import Drawn, Incoming, LabeledFrame, whole_file
from appliance.labels import Label, LabelError, Origin, fields_of, label_of
from appliance.naming import Renaming

CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("file", "sha256", "label", "class", "level", "box_class", *CORNERS, "who", "at", "note", "origin", "settles",
           "empty", "retracted_by", "retracted_at", "earlier_box_class", "renamed")  # fmt: skip
OF_A_BOX = ("box_class", *CORNERS, "earlier_box_class")
BESIDE = (*OF_A_BOX, "renamed")  # what does not tell one label from another
TRUTH = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def write(frames: Iterable[LabeledFrame], path: Path) -> None:
    """Write all labels of frames, oldest first; a frame without labels has no row."""
    with whole_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for frame in frames:
            for label in frame.labels:
                row = {"file": frame.path, "sha256": frame.sha256, "label": label.id}
                row |= {name: fields_of(label)[name] for name in ("class", "level", "who", "at", "note", "origin")}
                row |= {"settles": int(label.settles), "empty": int(label.empty)}
                if label.retracted is not None:
                    row |= {"retracted_by": label.retracted.who, "retracted_at": label.retracted.at}
                earlier = label.earlier.box_classes if label.earlier else (None,) * len(label.boxes)
                if label.earlier is not None:
                    row |= {"renamed": json.dumps(label.earlier.renamed, ensure_ascii=False)}
                for box, name, said in zip(label.boxes, label.box_classes, earlier, strict=True):
                    of_box = {"box_class": name, "earlier_box_class": said} | dict(zip(CORNERS, box, strict=True))
                    writer.writerow(row | of_box)
                if not label.boxes:
                    writer.writerow(row)


def read(path: Path) -> Iterator[Incoming]:
    """What a CSV file says: as write has it, or with no more than `file` and what is known of it.

    Rows that agree in all but the box are one label.

    Raises:
        LabelError: no such columns, a number that is none, or a box that is not whole.
    """
    found: dict[tuple[str, str], dict[str, list[Mapping[str, str]]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "file" not in (reader.fieldnames or ()):
                raise LabelError(
                    f"{path}: columns {', '.join(reader.fieldnames or ()) or 'none'}, wanted at least file"
                )
            if strange := set(reader.fieldnames or ()) - set(COLUMNS):
                raise LabelError(f"{path}: column {min(strange)}, wanted some of {', '.join(COLUMNS)}")
            for row in reader:
                labels = found.setdefault((row["file"], row.get("sha256") or ""), {})
                # Rows of one label stand together; without a number, rows that say the same but for the box.
                key = json.dumps([row.get(name) or "" for name in COLUMNS if name not in BESIDE])
                labels.setdefault(key, []).append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path}: {error}") from error
    for (name, sha256), labels in found.items():
        try:
            whole = [rows for rows in labels.values() if rows[0].get("who") and rows[0].get("at")]
            bare = [rows for rows in labels.values() if rows not in whole]
            yield Incoming(path=name, sha256=sha256 or None, labels=tuple(map(_label, whole)),
                           drawn=tuple(map(_drawn, bare)))  # fmt: skip
        except (ValueError, TypeError, RecursionError, LabelError) as error:
            raise LabelError(f"{path}: {name}: {error}") from error


def _boxes(rows: Sequence[Mapping[str, str]]) -> list[tuple[tuple[float, float, float, float], str | None]]:
    found = []
    for row in rows:
        corners = [row.get(corner) or "" for corner in CORNERS]
        if any(corners):
            if not all(corners):
                raise ValueError(f"box {', '.join(corners)}, wanted {', '.join(CORNERS)}")
            x0, y0, x1, y1 = map(float, corners)
            found.append(((x0, y0, x1, y1), row.get("box_class") or None))
    return found


def _label(rows: Sequence[Mapping[str, str]]) -> Label:
    first, boxes = rows[0], _boxes(rows)
    return label_of({
        "class": first.get("class") or None, "level": float(first["level"]) if first.get("level") else None,
        "boxes": [box for box, _ in boxes], "box_classes": [name for _, name in boxes], "who": first["who"],
        "at": first["at"], "note": first.get("note") or None, "origin": first.get("origin") or None,
        "settles": _truth(first, "settles"), "empty": _truth(first, "empty"), "retracted": _retraction(first),
        "earlier": _earlier(rows),
    })  # fmt: skip


def _earlier(rows: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """Names before renamings: a JSON list of old name, new name, who and when of each, and what each box was called."""
    texts, said = {row.get("renamed") or "" for row in rows}, [row.get("earlier_box_class") or None for row in rows]
    if len(texts) > 1:
        raise ValueError("boxes of one label with different renamed: where a class is changed by hand, earlier_box_class and "
                         "renamed must be emptied in all rows of its label")  # fmt: skip
    [text] = texts
    if not text:
        if any(said):
            raise ValueError("earlier_box_class without renamed")
        return None
    renamed = json.loads(text)
    if not (
        isinstance(renamed, list) and all(isinstance(r, list) and len(r) == len(Renaming._fields) for r in renamed)
    ):
        raise ValueError(f"renamed {text}, wanted a JSON list of [old, new, who, at]")
    return {"box_classes": said, "renamed": [dict(zip(Renaming._fields, one, strict=True)) for one in renamed]}


def _truth(row: Mapping[str, str], column: str) -> bool:
    text = (row.get(column) or "").strip().lower()
    if text not in TRUTH:
        raise ValueError(f"{column} {text!r}, wanted 1 or 0")
    return TRUTH[text]


def _retraction(row: Mapping[str, str]) -> dict[str, str] | None:
    who, at = row.get("retracted_by"), row.get("retracted_at")
    if bool(who) != bool(at):
        raise ValueError("one of retracted_by and retracted_at without the other")
    return {"who": who, "at": at} if who and at else None


def _drawn(rows: Sequence[Mapping[str, str]]) -> Drawn:
    first, boxes = rows[0], _boxes(rows)
    if (first.get("origin") or Origin.PERSON) != Origin.PERSON:
        raise ValueError(f"origin {first['origin']} without who and at")
    if _retraction(first):
        raise ValueError("taken back, without who and at")
    return Drawn(
        boxes=tuple(box for box, _ in boxes), box_classes=tuple(name for _, name in boxes),
        class_name=first.get("class") or None, level=float(first["level"]) if first.get("level") else None, whole=True,
        note=first.get("note") or None, settles=_truth(first, "settles"), empty=_truth(first, "empty"),
        who=first.get("who") or None, at=first.get("at") or None,
    )  # fmt: skip
