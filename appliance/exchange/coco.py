"""Labels as COCO: one image a frame, one annotation a box; what COCO has no place for lies in the key `umbra`."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from appliance.exchange import Drawn, Incoming, LabeledFrame, json_in, text_or_none, whole_file
from appliance.labels import UNNAMED, LabelError, fields_of, label_of, standing


def write(frames: Iterable[LabeledFrame], path: Path) -> None:
    """Write frames with the label that holds of each as annotations, and all others under `umbra`."""
    frames = list(frames)
    holds = {frame.frame_id: frame.standing.label for frame in frames}
    names = sorted({name or UNNAMED for label in holds.values() if label for name in label.box_classes})
    numbers = {name: k for k, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    for frame_id, label in holds.items():
        for (x0, y0, x1, y1), name in zip(label.boxes, label.box_classes, strict=True) if label else ():
            annotations.append({
                "id": len(annotations) + 1, "image_id": frame_id, "category_id": numbers[name or UNNAMED],
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0,
            })  # fmt: skip
    document = {
        "info": {"description": "labels of an Umbra station", "version": "1"},
        "images": [
            {"id": f.frame_id, "file_name": f.path, "width": f.width, "height": f.height,
             "umbra": {"sha256": f.sha256, "labels": [fields_of(label) for label in f.labels]}}
            for f in frames
        ],
        "categories": [{"id": k, "name": name} for name, k in numbers.items()],
        "annotations": annotations,
    }  # fmt: skip
    with whole_file(path) as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read(path: Path) -> Iterator[Incoming]:
    """What a COCO file says. An image without annotations says that there is nothing on it.

    Raises:
        LabelError: no COCO, an annotation that belongs to no image or category, or two images of one id or one frame.
    """
    document = json_in(path)
    if not (isinstance(document, dict) and {"images", "categories", "annotations"} <= document.keys()):
        raise LabelError(f"{path}: no COCO file: wanted images, categories and annotations")
    try:
        images: list[dict[str, Any]] = document["images"]
        categories = {c["id"]: str(c["name"]) for c in document["categories"]}
        _check_once("id", (image["id"] for image in images), path)
        _check_once(
            "frame",
            (
                (image["file_name"], text_or_none((image.get("umbra") or {}).get("sha256"), "sha256"))
                for image in images
            ),
            path,
        )
        boxes: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in document["annotations"]:
            if annotation["category_id"] not in categories:
                raise LabelError(f"{path}: annotation {annotation.get('id')} of category {annotation['category_id']!r}, which is "
                                 f"not among the categories")  # fmt: skip
            boxes[annotation["image_id"]].append(annotation)
        if strangers := boxes.keys() - {image["id"] for image in images}:
            raise LabelError(f"{path}: annotations of image {min(strangers)}, which is not among the images")
        incoming = [_frame(image, boxes[image["id"]], categories) for image in images]
    except KeyError as error:
        raise LabelError(f"{path}: no COCO file: {error.args[0]!r} is missing somewhere in it") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise LabelError(f"{path}: no COCO file: {error}") from error
    yield from incoming


def _check_once(what: str, values: Iterable[object], path: Path) -> None:
    """Boxes of one image would else be those of another, or that other say that nothing is there."""
    if twice := [value for value, count in Counter(values).items() if count > 1]:
        raise LabelError(f"{path}: {len(twice)} times two images of one {what}, {twice[0]!r} the first")


def _frame(image: Mapping[str, Any], annotations: list[dict[str, Any]], categories: Mapping[int, str]) -> Incoming:
    ours = image.get("umbra") or {}
    corners = [tuple(map(float, annotation["bbox"])) for annotation in annotations]
    names = [categories[annotation["category_id"]] for annotation in annotations]
    drawn = Drawn(
        boxes=tuple((x, y, x + w, y + h) for x, y, w, h in corners), box_classes=tuple(names), empty=not annotations
    )
    labels = tuple(label_of(fields) for fields in ours.get("labels", ()))
    unlabeled = bool(ours) and standing(labels).label is None and not annotations
    size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
    return Incoming(
        path=str(image["file_name"]), sha256=text_or_none(ours.get("sha256"), "sha256"), size=size, labels=labels,
        drawn=() if unlabeled else (drawn,),
    )  # fmt: skip
