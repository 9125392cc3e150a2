"""Labels as Label Studio tasks: the stretched image and its overlay inside, regions of S as pre-annotations."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from appliance.exchange import Drawn, Incoming, LabeledFrame, json_in, text_or_none, whole_file
from appliance.labels import UNNAMED, Label, LabelError, Origin, fields_of, in_utc, label_of
from engines.classes import CLASSES
from kernels import IMAGE_SIDE

OWN, PROPOSED = "label-", "proposal-"  # what regions are called after, with the label's number
UNSEEN = "unseen"  # name of pre-annotated regions
BOX, CLASS, LEVEL, EMPTY, IMAGE = "box", "class", "level", "empty", "image"  # control tags of the labeling interface
NOTHING = "nothing to draw a box around"


def write(frames: Iterable[LabeledFrame], path: Path) -> None:
    """Write one task a frame, and beside it the labeling interface as <path>.xml.

    Every person's labels become annotations, proposals and the regions of the unseen map become predictions; what the form
    has no place for lies in the task's data under `umbra`, which Label Studio exports again.

    Raises:
        LabelError: the path is that of the interface.
    """
    beside = path.with_suffix(".xml")
    if beside == path:
        raise LabelError(
            f"{path}: wanted another suffix for the tasks, beside which the labeling interface lies as .xml"
        )
    names: set[str] = set()
    with whole_file(path) as file:  # pictures are large: no more than one task at a time
        file.write("[")
        for number, frame in enumerate(frames):
            file.write(",\n" if number else "\n")
            json.dump(_task(frame), file, ensure_ascii=False)
            names |= {name for label in frame.labels for name in label.box_classes if name}
        file.write("\n]\n")
    with whole_file(beside) as file:
        file.write(interface(sorted(names)))


def interface(names: Sequence[str]) -> str:
    """The labeling interface: class and level of the frame, boxes of the classes named so far."""
    boxes = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in dict.fromkeys((*names, UNNAMED, UNSEEN)))
    classes = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in CLASSES)
    return f"""<View>
  <Header value="$path"/>
  <Image name="{IMAGE}" value="$image" zoom="true" zoomControl="true"/>
  <RectangleLabels name="{BOX}" toName="{IMAGE}" canRotate="false">
{boxes}
  </RectangleLabels>
  <Choices name="{CLASS}" toName="{IMAGE}" choice="single" showInline="true">
{classes}
  </Choices>
  <Number name="{LEVEL}" toName="{IMAGE}" min="0" max="10"/>
  <Choices name="{EMPTY}" toName="{IMAGE}" choice="multiple">
    <Choice value={quoteattr(NOTHING)}/>
  </Choices>
  <Image name="overlay" value="$overlay"/>
</View>
"""


def _task(frame: LabeledFrame) -> dict[str, Any]:
    held = [label for label in frame.labels if label.retracted is None]
    people = [(label, _result(frame, label)) for label in held if label.origin is Origin.PERSON]
    proposals = [label for label in held if label.origin is Origin.PROPOSAL]
    regions = [(*roi["box"], UNSEEN, roi["peak"]) for roi in frame.rois]
    predictions = [{"model_version": frame.bundle, "result": _boxes(frame, regions, UNSEEN)}] if regions else []
    predictions += [{"model_version": label.who, "result": _result(frame, label)} for label in proposals]
    image, overlay = frame.pictures or (None, None)
    return {
        "data": {
            "image": _inline(image), "overlay": _inline(overlay), "path": frame.path,
            "umbra": {"sha256": frame.sha256, "width": frame.width, "height": frame.height,
                      "labels": [fields_of(label) for label in frame.labels]},
        },
        # Regions say which label they are of; an annotation without any says that there is nothing.
        "annotations": [{"result": result, "created_at": label.at} for label, result in people if result],
        "predictions": predictions,
    }  # fmt: skip


def _inline(png: bytes | None) -> str | None:
    return None if png is None else "data:image/png;base64," + base64.b64encode(png).decode()


def _result(frame: LabeledFrame, label: Label) -> list[dict[str, Any]]:
    named = zip(label.boxes, label.box_classes, strict=True)
    mark = f"{OWN if label.origin is Origin.PERSON else PROPOSED}{label.id}"
    result = _boxes(frame, [(*box, name or UNNAMED, None) for box, name in named], mark)
    frame_wide = {"to_name": IMAGE, "original_width": IMAGE_SIDE, "original_height": IMAGE_SIDE, "image_rotation": 0}
    if label.class_name is not None:
        result.append(
            {"id": f"{mark}-{CLASS}", "type": "choices", "from_name": CLASS, "value": {"choices": [label.class_name]}}
            | frame_wide
        )
    if label.empty:
        result.append(
            {"id": f"{mark}-{EMPTY}", "type": "choices", "from_name": EMPTY, "value": {"choices": [NOTHING]}}
            | frame_wide
        )
    if label.level is not None:
        result.append(
            {"id": f"{mark}-{LEVEL}", "type": "number", "from_name": LEVEL, "value": {"number": label.level}}
            | frame_wide
        )
    return result


def _boxes(
    frame: LabeledFrame, named: Sequence[tuple[int, int, int, int, str, float | None]], mark: str
) -> list[dict[str, Any]]:
    """Rectangles in percent of the frame."""
    width, height = frame.size or (1, 1)
    found = []
    for number, (x0, y0, x1, y1, name, score) in enumerate(named, start=1):
        value = {"x": 100 * x0 / width, "y": 100 * y0 / height, "width": 100 * (x1 - x0) / width,
                 "height": 100 * (y1 - y0) / height, "rotation": 0, "rectanglelabels": [name]}  # fmt: skip
        one = {"id": f"{mark}-{number}", "type": "rectanglelabels", "from_name": BOX, "to_name": IMAGE,
               "original_width": IMAGE_SIDE, "original_height": IMAGE_SIDE, "image_rotation": 0, "value": value}  # fmt: skip
        found.append(one if score is None else one | {"score": score})
    return found


def read(path: Path) -> Iterator[Incoming]:
    """What an export of Label Studio (JSON, or the tasks of write) says; skipped and cancelled annotations say nothing.

    One that was submitted without anything says that there is nothing to draw a box around.

    Raises:
        LabelError: no such export.
    """
    tasks = json_in(path)
    if not isinstance(tasks, list):
        raise LabelError(f"{path}: wanted a list of tasks (Label Studio's JSON, not JSON-MIN)")
    incoming = []
    for number, task in enumerate(tasks, start=1):
        try:
            incoming.append(_incoming(task))
        except LabelError as error:
            raise LabelError(f"{path}: {_called(task, number)}: {error}") from error
        except KeyError as error:
            raise LabelError(
                f"{path}: no export of Label Studio: {_called(task, number)}: {error.args[0]!r} is missing"
            ) from error
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise LabelError(f"{path}: no export of Label Studio: {_called(task, number)}: {error}") from error
    yield from incoming


def _called(task: object, number: int) -> str:
    """A task, for messages."""
    data = task.get("data") if isinstance(task, dict) else None
    path = data.get("path") if isinstance(data, dict) else None
    return f"task {number}" + (f" ({path})" if isinstance(path, str) else "")


def _incoming(task: Mapping[str, Any]) -> Incoming:
    data = task["data"]
    ours = data.get("umbra") or {}
    said = [a for a in task.get("annotations", ()) if not (a.get("was_cancelled") or a.get("skipped"))]
    return Incoming(
        path=str(data.get("path") or data["image"]), sha256=text_or_none(ours.get("sha256"), "sha256"),
        labels=tuple(label_of(fields) for fields in ours.get("labels", ())), drawn=tuple(map(_drawn, said)),
    )  # fmt: skip


def _drawn(annotation: Mapping[str, Any]) -> Drawn:
    by = annotation.get("completed_by")
    person = by.get("email") if isinstance(by, dict) else None
    number = str(by) if isinstance(by, int) else None
    results: dict[str, list[Mapping[str, Any]]] = {"rectanglelabels": [], "choices": [], "number": []}
    for one in annotation["result"]:
        if one["type"] not in results:
            raise LabelError(f"a result of type {one['type']}, wanted rectangles, a choice and a number")
        if one["type"] == "rectanglelabels" and not one["value"].get("rectanglelabels"):
            raise LabelError("a rectangle without a label, wanted one of its class")
        results[one["type"]].append(one)
    boxes, choices, levels = results.values()
    classes = [one for one in choices if one.get("from_name") != EMPTY]
    at = annotation.get("updated_at") or annotation.get("created_at")
    return Drawn(
        boxes=tuple(map(_corners, boxes)), box_classes=tuple(box["value"]["rectanglelabels"][0] for box in boxes),
        relative=True, of=_made_of(annotation), class_name=classes[0]["value"]["choices"][0] if classes else None,
        level=float(levels[0]["value"]["number"]) if levels else None, whole=True,
        empty=len(classes) < len(choices) or not annotation["result"],
        who=person or (number and f"label-studio:{number}"), number=number, at=None if at is None else in_utc(at),
    )  # fmt: skip


def _made_of(annotation: Mapping[str, Any]) -> int | None:
    """Number of the label whose regions an annotation has; None where all of it was drawn anew."""
    for one in annotation["result"]:
        if found := re.match(rf"{OWN}(\d+)-", str(one.get("id", ""))):
            return int(found[1])
    return None


def _corners(result: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Of a rectangle in percent, as shares of the sides; of a turned one, the box around it."""
    x, y, w, h = (float(result["value"][key]) / 100 for key in ("x", "y", "width", "height"))
    angle = math.radians(float(result["value"].get("rotation") or 0))
    if not angle:
        return x, y, x + w, y + h
    wide, high = float(result["original_width"]), float(result["original_height"])  # it turns as pixels do
    cos, sin = math.cos(angle), math.sin(angle)
    offsets = [(u * cos - v * sin, u * sin + v * cos) for u in (0, w * wide) for v in (0, h * high)]
    xs, ys = [x + u / wide for u, _ in offsets], [y + v / high for _, v in offsets]
    return min(xs), min(ys), max(xs), max(ys)
