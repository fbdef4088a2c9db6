"""COCO data sets as programs export them: what of their annotations can be learned, checked before training begins."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .coco_find import DatasetError, Json, find_annotations, find_images

logger = logging.getLogger(__name__)

HELD_OUT = 10
"""Where a data set is not split, one image in so many is measured with and not learned from."""
_BACKGROUND = ("_background_", "background", "__ignore__")
# As Datumaro, and so CVAT, begin each file (findings/datumaro-masks-are-crowds.sh).
_DATUMARO = [{"name": "", "id": 0, "url": ""}]

# Two corners of a box written as a polygon may be so many pixels off one line.
_ROUNDING = 0.01

Shape = list[list[float]] | dict[str, Any]


@dataclass(frozen=True)
class CocoInstance:
    """label: index into the names. box: x, y, width, height in pixels of the image as annotated, None: that of ``shape``.
    shape: polygons or runs, None: the box. visibility: in [0, 1]; 0 is neither learned nor taken for background."""

    label: int
    box: tuple[float, float, float, float] | None
    shape: Shape | None
    visibility: float = 1.0

    @property
    def outlined(self) -> bool:
        """Whether ``shape`` is more than a box, which some programs write as a polygon."""
        if not isinstance(self.shape, list) or len(self.shape) > 1:
            return self.shape is not None
        points = np.reshape(self.shape[0], (-1, 2))
        corners = (np.abs(points - points.min(0)) < _ROUNDING) | (np.abs(points - points.max(0)) < _ROUNDING)
        return not (len(points) <= 5 and len(np.unique(points, axis=0)) == 4 and bool(corners.all()))


@dataclass(frozen=True)
class CocoImage:
    """size: height and width as annotated, None where the file does not say."""

    path: Path
    size: tuple[int, int] | None
    instances: tuple[CocoInstance, ...]


@dataclass(frozen=True)
class CocoSplit:
    """file: of the annotations."""

    file: Path
    names: tuple[str, ...]
    images: tuple[CocoImage, ...]

    @property
    def outlines(self) -> tuple[int, int]:
        """Number of the instances whose outline is known, and of all."""
        found = [one.outlined for image in self.images for one in image.instances]
        return sum(found), len(found)


def read_dataset(path: str | Path) -> tuple[CocoSplit, CocoSplit]:
    """What to train on and what to measure with, of the same names. What is left out is said through ``logging``.

    path: a folder as Roboflow, CVAT, Label Studio, FiftyOne or COCO lay it out, or a COCO file; a data set that is not split gives
    every tenth image to the second. Categories without any annotation are left out where they are the root of others (its
    supercategory is "none", or others name it as theirs), or the background. Raises DatasetError.
    """
    path = Path(path).expanduser()
    (file, content), other = find_annotations(path)
    root = path if path.is_dir() else path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    names = _names(file, content, _used(file, content) | (_used(*other) if other else set()))
    train = _split(file, content, root, names)
    if other is not None:
        return train, _split(*other, root, names)
    if len(train.images) < 2:
        logger.warning(f"{file}: its only image is both learned from and measured with")
        return train, train
    order = np.random.default_rng(0).permutation(len(train.images)).tolist()
    count = max(1, len(order) // HELD_OUT)
    logger.info(f"{file} is not split: {count} of its {len(order)} images are measured with, and not learned from")
    kept = [tuple(train.images[i] for i in sorted(part)) for part in (order[count:], order[:count])]
    return replace(train, images=kept[0]), replace(train, images=kept[1])


def _used(file: Path, content: Json) -> set[str]:
    """Names of the categories that have annotations."""
    of = {id: name for id, name, _ in _classes(file, content)}
    return {of.get(_key(a.get("category_id")), "") for a in _entries(content, "annotations")}


def _entries(content: Json, key: str) -> list[Mapping[str, Any]]:
    return [entry for entry in content[key] if isinstance(entry, Mapping)]


def _key(value: Any) -> int | str:
    """An id as it is compared: 3, "3" and 3.0 are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _classes(file: Path, content: Json) -> list[tuple[int | str, str, str]]:
    """(id, name, supercategory or "") in the order of ids. Raises DatasetError."""
    found = []
    for entry in _entries(content, "categories"):
        if "id" not in entry or not str(entry.get("name") or "").strip():
            raise DatasetError(f"{file} has a category without id or name: {dict(entry)}")
        found.append((_key(entry["id"]), str(entry["name"]).strip(), str(entry.get("supercategory") or "")))
    return sorted(found, key=lambda c: (isinstance(c[0], str), c[0]))


def _names(file: Path, content: Json, used: set[str]) -> tuple[str, ...]:
    classes = _classes(file, content)
    parents = {parent for _, name, parent in classes if parent not in ("", name)}
    flat = all(parent == "none" for _, _, parent in classes)  # a program that calls every one's so
    kept = [
        name
        for _, name, parent in classes
        if name in used or not ((parent == "none" and not flat) or name in parents or name.lower() in _BACKGROUND)
    ]
    return tuple(dict.fromkeys(kept))


def _split(file: Path, content: Json, root: Path, names: Sequence[str]) -> CocoSplit:
    left: Counter[str] = Counter()
    of = {id: name for id, name, _ in _classes(file, content)}
    entries, annotations = _entries(content, "images"), _entries(content, "annotations")
    strange = sorted({str(a.get("category_id")) for a in annotations if _key(a.get("category_id")) not in of})
    if strange:
        raise DatasetError(f"{file} has annotations of categories {', '.join(strange[:9])}, which it does not list")
    if not entries or not names:
        raise DatasetError(f"{file} has {len(entries)} images and {len(names)} categories")
    alien = sorted({of[_key(a["category_id"])] for a in annotations} - set(names))
    if alien:
        raise DatasetError(
            f"{file} has annotations of {', '.join(alien)}, of which training has none: it has {', '.join(names)}"
        )
    crowds = _crowds(file, content, annotations, of)
    instances: dict[Any, list[CocoInstance]] = {_key(e.get("id")): [] for e in entries}
    if len(instances) < len(entries):
        raise DatasetError(
            f"{file}: {len(entries)} images have only {len(instances)} different ids (were files joined?)"
        )
    of_id = {_key(e.get("id")): e for e in entries}
    sizes = {id: _size(e) for id, e in of_id.items()}
    for a in annotations:
        id = _key(a.get("image_id"))
        if id not in instances:
            left["annotations are of images that it does not list"] += 1
            continue
        where = f"{file}: the segmentation of annotation {a.get('id')} (image {of_id[id].get('file_name')})"
        made = _instance(
            where, a, names.index(of[_key(a["category_id"])]), sizes[id], bool(a.get("iscrowd")) and crowds
        )
        if made is None:
            left["annotations have neither an outline nor a box within their image"] += 1
        else:
            instances[id].append(made)
    named = [str(e.get("file_name") or "") for e in entries]
    paths, where = find_images(file, root, named)
    images = [
        CocoImage(path, sizes[_key(e.get("id"))], tuple(instances[_key(e.get("id"))]))
        for path, e in zip(paths, entries, strict=True)
        if path is not None
    ]
    if not images:
        raise DatasetError(f"{file}: none of its {len(entries)} images is there, e.g. {named[0]} (looked in {where})")
    if missing := [name for path, name in zip(paths, named, strict=True) if path is None]:
        left[f"images are missing, e.g. {missing[0]} (looked in {where})"] = len(missing)
    for reason, count in left.items():
        logger.warning(f"{file}: {count} {reason}: left out")
    _judge_boxes(file, images)
    return CocoSplit(file, tuple(names), tuple(images))


def _crowds(file: Path, content: Json, annotations: Iterable[Mapping[str, Any]], of: Mapping[Any, str]) -> bool:
    """Whether ``iscrowd`` means what COCO means by it: many things in one outline.

    Datumaro and CVAT set it on every mask, and where all annotations of a class have it there is nothing else to learn from.
    """
    marked, alone = Counter[str](), Counter[str]()
    for a in annotations:
        (marked if a.get("iscrowd") else alone)[of[_key(a["category_id"])]] += 1
    if not marked:
        return True
    never = [name for name in marked if not alone[name]]
    if content.get("licenses") == _DATUMARO or never:
        logger.info(
            f"{file}: {sum(marked.values())} annotations are marked as crowds (iscrowd), as CVAT and Datumaro mark every mask: "
            "taken as one thing each"
        )
        return False
    logger.info(
        f"{file}: {sum(marked.values())} annotations are crowds (iscrowd): neither learned nor taken for background"
    )
    return True


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    numbers = [_number(entry.get(key)) for key in ("height", "width")]
    height, width = (int(n) if n is not None and n >= 1 else 0 for n in numbers)
    return (height, width) if height and width else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _instance(
    where: str, entry: Mapping[str, Any], label: int, size: tuple[int, int] | None, crowd: bool
) -> CocoInstance | None:
    """None where nothing says where it is. Raises DatasetError for an outline that cannot be read."""
    shape, box = _shape(where, entry), _box(entry.get("bbox"), size)
    if shape is None and box is None:
        return None
    visible = _number(entry.get("visibility", 1.0))
    ignored = crowd or bool(entry.get("ignore"))
    return CocoInstance(label, box, shape, 0.0 if ignored else 1.0 if visible is None else min(max(visible, 0.0), 1.0))


def _box(value: Any, size: tuple[int, int] | None) -> tuple[float, float, float, float] | None:
    """None for what is no box, or lies outside the image."""
    numbers = [_number(v) for v in value] if isinstance(value, list | tuple) and len(value) == 4 else [None]
    x, y, w, h = (n for n in numbers if n is not None) if None not in numbers else (0.0, 0.0, 0.0, 0.0)
    if w <= 0 or h <= 0 or x + w <= 0 or y + h <= 0 or (size is not None and (x >= size[1] or y >= size[0])):
        return None
    return (x, y, w, h)


def _shape(where: str, entry: Mapping[str, Any]) -> Shape | None:
    """Polygons or runs, checked as far as it costs nothing; None where there are none. Raises DatasetError."""
    shape = entry.get("segmentation")
    try:
        if isinstance(shape, Mapping):
            height, width = (int(n) for n in shape["size"])
            counts = shape["counts"]
            if isinstance(counts, list) and sum(counts) != height * width:
                raise ValueError(f"its runs cover {sum(counts)} of {height}x{width} pixels")
            if not isinstance(counts, list | str):
                raise ValueError("its counts are neither a list nor a text")
            return dict(shape) if counts else None
        if not isinstance(shape, list):
            return None
        if shape and all(isinstance(v, int | float) for v in shape):  # one polygon without the list around it
            shape = [shape]
        # Kept as they are: a large data set has a hundred million of these numbers.
        polygons = [polygon for polygon in shape if len(polygon) >= 6 or len(polygon) % 2]
        for polygon in polygons:
            if len(polygon) % 2 or not math.isfinite(math.fsum(polygon)):
                raise ValueError(f"a polygon has {len(polygon)} numbers, expected finite pairs")
        return polygons or None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DatasetError(f"{where} cannot be read: {error}; export it anew, or without segmentations") from error


def _judge_boxes(file: Path, images: Iterable[CocoImage]) -> None:
    """Boxes in another form than COCO's are numbers as well. Raises DatasetError for fractions."""
    found = [(i.box, image.size) for image in images for i in image.instances if i.box and not i.shape and image.size]
    if not found:
        return
    boxes = np.array([box for box, _ in found])
    height, width = np.array([size for _, size in found]).T
    if boxes.max() <= 1.0 and min(height.min(), width.min()) > 16:
        raise DatasetError(
            f"{file}: all its boxes are within 1 pixel: they are fractions of the image; COCO's are in pixels"
        )
    beyond = float(((boxes[:, 0] + boxes[:, 2] > width + 2) | (boxes[:, 1] + boxes[:, 3] > height + 2)).mean())
    if beyond > 0.2:
        logger.warning(
            f"{file}: {beyond:.0%} of its boxes reach beyond their images: COCO's are x, y, width, height; are these two corners?"
        )
