"""Where the annotations and the images of a COCO data set are: as Roboflow, CVAT, Label Studio, FiftyOne, BlenderProc and
COCO itself lay them out, and what is said of data sets of other layouts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..errors import UserError
from ..stand_ins import HEAD, stand_in

ANNOTATIONS = "_annotations.coco.json"
_SCENE = "scene_gt_coco.json"
TRAIN, VALID = ("train", "training"), ("valid", "val", "validation")
_TEST = ("test", "testing")
# Of the same images, but not their instances.
_NO_INSTANCES = ("panoptic", "caption", "keypoint", "stuff", "image_info", "labels_")
_DEEPEST, _MOST_FOLDERS, _LOOKED_AT = 3, 2000, 40

Json = dict[str, Any]


class DatasetError(UserError, ValueError):
    """A data set that cannot be trained on; the message names the file and what is expected."""


def find_annotations(path: Path) -> tuple[tuple[Path, Json], tuple[Path, Json] | None]:
    """Files and content of what to train on, and of what to measure with (None: the data set is not split). Raises DatasetError.

    path: a folder of ``train/`` and ``valid/``, of ``annotations/instances_train.json``, of one COCO file, or that file.
    """
    if not path.exists():
        raise DatasetError(f"data set {path} does not exist; name a folder in COCO layout, or its annotation file")
    if path.is_file():
        return (path, read_json(path)), None
    train, valid = _of_split(path, TRAIN), _of_split(path, VALID)
    if train is None:
        train = _of_scenes(path)
    if train is None:
        train = _one(path, [p for p in _json_files(path) if valid is None or p != valid[0]])
    return train, valid or _of_split(path, _TEST)


def split_of(file: Path) -> tuple[str, ...]:
    """The names of the split that an annotation file is of, () where neither its name nor its folder says it."""
    for names in (TRAIN, VALID, _TEST):
        if _words(file.stem) & set(names) or _words(file.parent.name) & set(names):
            return names
    return ()


def _words(name: str) -> set[str]:
    """ "instances_train2017" is of instances and of train."""
    return {word for word in re.split(r"[^a-z]+", name.lower()) if word}


def _json_files(folder: Path) -> list[Path]:
    """Those of a folder and of its ``annotations/``, those that hold instances by their names first."""
    found = [p for f in (folder, folder / "annotations", folder / "Annotations") if f.is_dir() for p in f.iterdir()]
    files = sorted({p for p in found if p.suffix.lower() == ".json" and p.is_file()})
    fitting = [p for p in files if not any(word in p.stem.lower() for word in _NO_INSTANCES)]
    return sorted(fitting, key=lambda p: (p.name != ANNOTATIONS, "instances" not in p.stem.lower(), p.name))


def _of_split(root: Path, names: Sequence[str]) -> tuple[Path, Json] | None:
    inside = [p for p in sorted(root.iterdir()) if p.is_dir() and _words(p.name) & set(names)]
    files = [file for folder in inside for file in _json_files(folder)]
    files += [p for p in _json_files(root) if _words(p.stem) & set(names)]
    for file in files:
        content = _if_coco(file)
        if content is not None:
            return file, content
    # A broken file is named, instead of "there is none".
    return (files[0], read_json(files[0])) if files and files[0].name == ANNOTATIONS else None


def _of_scenes(root: Path) -> tuple[Path, Json] | None:
    """The scenes of a split of BOP, each with its own scene_gt_coco.json, as one; None for other folders. Raises DatasetError."""
    files = sorted(root.glob(f"*/{_SCENE}"))
    images: list[Any] = []
    annotations: list[Any] = []
    categories: dict[str, Any] = {}
    for file in files:
        content, scene = read_json(file), file.parent.name
        entries = [e for e in content["images"] if isinstance(e, dict)]
        images += [{**e, "id": f"{scene}/{e.get('id')}", "file_name": f"{scene}/{e.get('file_name')}"} for e in entries]
        made = [a for a in content["annotations"] if isinstance(a, dict)]
        annotations += [{**a, "image_id": f"{scene}/{a.get('image_id')}"} for a in made]
        categories |= {str(c.get("id")): c for c in content["categories"] if isinstance(c, dict)}
    if not files:
        return None
    return root / _SCENE, {"images": images, "annotations": annotations, "categories": list(categories.values())}


def _one(root: Path, files: Sequence[Path]) -> tuple[Path, Json]:
    """The only COCO file of a folder. Raises DatasetError."""
    found = [(file, content) for file in files[:_LOOKED_AT] if (content := _if_coco(file)) is not None]
    if len(found) > 1:
        named = ", ".join(file.name for file, _ in found)
        raise DatasetError(f"{root} has {named}, none of which is named train; name one of these files")
    if found:
        return found[0]
    if files and files[0].name == ANNOTATIONS:
        return files[0], read_json(files[0])
    raise DatasetError(
        f"{root} is no data set in COCO layout: neither train/{ANNOTATIONS} nor annotations/instances_train.json nor another "
        f"file with images, annotations and categories is there; {_what_it_is(root, files)}"
    )


def _if_coco(file: Path) -> Json | None:
    try:
        return read_json(file)
    except DatasetError:
        return None


def read_json(path: Path) -> Json:
    """The content of a file of COCO instances. Raises DatasetError that says what else it is."""
    try:
        data = path.read_bytes()
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if reason := stand_in(data[:HEAD]):
            raise DatasetError(f"{path} cannot be read: {reason}") from error
        kind = "a zip archive; unpack it and name the folder" if path.suffix.lower() == ".zip" else f"no JSON: {error}"
        raise DatasetError(f"{path} is {kind}") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    other = _other_json(content)
    if other:
        raise DatasetError(f"{path} is no COCO file but {other}")
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise DatasetError(f"{path} has no list {', '.join(missing)}")
    known: Json = content
    return known


def _other_json(content: Any) -> str:
    """What a JSON file of another program is and what helps; "" where it may be COCO."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        if "data" in first or "completions" in first:
            return "Label Studio's own JSON; export the project as COCO there"
        if "image" in first and "annotations" in first:
            return "CreateML's; export the data set as COCO"
        return "a list (detections of a network?)"
    if not isinstance(content, dict):
        return "something else"
    if "shapes" in content:
        return "labelme's of one image; labelme2coco (PyPI) makes one COCO file of the folder"
    if "_via_img_metadata" in content:
        return "the project of VIA; use its menu Annotation > Export Annotations (COCO format)"
    if "items" in content and "categories" in content:
        return "Datumaro's own; datum convert -i . -if datumaro -f coco_instances -o OUT -- --save-media"
    annotations = content.get("annotations")
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], dict):
        if "segments_info" in annotations[0]:
            return "COCO's panoptic form; use the file of instances"
        if "caption" in annotations[0]:
            return "COCO's captions; use the file of instances"
    return ""


def _what_it_is(root: Path, files: Sequence[Path]) -> str:
    """Of a folder that is no COCO data set: what it seems to be, and how it becomes one."""
    for file in files[:_LOOKED_AT]:
        try:
            other = _other_json(json.loads(file.read_bytes().decode("utf-8-sig")))
        except (ValueError, OSError, RecursionError):
            continue
        if other:
            return f"{file.name} is {other}"
    inside = [*root.iterdir(), *(q for p in root.iterdir() if p.is_dir() for q in islice(p.iterdir(), 100))]
    names = {p.name.lower() for p in inside}
    if "labels" in names or names & {"data.yaml", "obj.data", "obj.names"}:
        return (
            "it looks like YOLO's: export it as COCO, or convert each split: supervision.DetectionDataset.from_yolo(IMAGES, LABELS, "
            f"'data.yaml').as_coco(images_directory_path='coco/train', annotations_path='coco/train/{ANNOTATIONS}')"
        )
    xml = next((p for p in [*inside, *islice(root.glob("*/*/*.xml"), 1)] if p.suffix.lower() == ".xml"), None)
    if xml is not None and b"<annotations>" in xml.read_bytes()[:200]:
        return f"{xml.name} is CVAT's own form: export the task as COCO 1.0"
    if xml is not None:
        return (
            "it looks like Pascal VOC's: export it as COCO, or convert each split: supervision.DetectionDataset.from_pascal_voc(IMAGES, "
            f"XML).as_coco(images_directory_path='coco/train', annotations_path='coco/train/{ANNOTATIONS}')"
        )
    zips = [p.name for p in inside if p.suffix.lower() == ".zip"]
    if zips:
        return f"unpack {zips[0]}"
    held = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    return f"it holds {held}; export the annotations as COCO"


def find_images(file: Path, root: Path, names: Sequence[str]) -> tuple[list[Path | None], str]:
    """Paths of the images that an annotation file names, None for what is missing, and where they were sought.

    All are taken from one folder, with the same number of leading parts of their names cut off (those of another machine, or a
    URL's): the one where most of them are. Else 0001.jpg of one split would be taken for that of another. A file that several of
    them would be is missing.
    """
    parts = [_parts(name) for name in names]
    bases = list(_bases(file, root))
    probe = parts[:: max(1, len(parts) // 50)]
    best, most = (file.parent, 0), 0
    for base in bases:
        for cut in range(max((len(p) for p in probe), default=0)):
            hits = sum(len(p) > cut and _there(base, p[cut:]) is not None for p in probe)
            if hits > most:
                best, most = (base, cut), hits
        if most == len(probe):
            break
    base, cut = best
    found = [_absolute(name) or _there(base, p[min(cut, len(p) - 1) :]) for name, p in zip(names, parts, strict=True)]
    taken = Counter(path for path in found if path is not None)
    alone = [None if path is None or taken[path] > 1 else path for path in found]
    return alone, str(base) if most else ", ".join(str(b) for b in bases[:6])


def _absolute(name: str) -> Path | None:
    path = Path(name)
    return path if path.is_absolute() and path.is_file() else None


def _parts(name: str) -> tuple[str, ...]:
    plain = re.sub(r"^\w+://", "", name.split("?")[0] if "://" in name else name).replace("\\", "/")
    return tuple(p for p in PurePosixPath(plain).parts if p not in ("/", ".", "..") and not p.endswith(":")) or (name,)


def _there(base: Path, parts: Sequence[str]) -> Path | None:
    for path in (base.joinpath(*parts), base.joinpath(*(unquote(p) for p in parts))):
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):  # a name that no file can have
            return None
    return None


def _bases(file: Path, root: Path) -> Iterator[Path]:
    """Folders in which images of an annotation file may be: near it, those that are named as its split, all others."""
    split = set(split_of(file)) | _words(file.stem) - {"instances", "annotations", "coco", "labels"}
    every = list(islice(_folders(root, _DEEPEST), _MOST_FOLDERS))
    near = [file.parent, *(file.parent / name for name in ("images", "data", "rgb"))]
    if file.parent.name.lower() == "annotations":
        near.append(file.parent.parent)
    named = [p for p in every if split & {w for part in p.relative_to(root).parts for w in _words(part)}]
    yield from dict.fromkeys(p for p in [*near, *named, root, *every] if p.is_dir())


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    if depth:
        for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
            yield path
            yield from _folders(path, depth - 1)
