"""Damaged COCO data sets, camera files and folders of images end in what can be used or in one sentence; ``make fuzz`` tries many."""

from __future__ import annotations

import json
import logging
import random

import cv2
import numpy as np
import pytest

from rfdetr_foundationpose.camera_files import read_camera
from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.train.coco_files import read_dataset
from rfdetr_foundationpose.train.coco_source import CocoSource
from support.camera_texts import FILES
from support.fuzz import cases, damage_file, damaged, mistyped, try_seeds
from support.image_folders import K, write

ENTRIES = [
    {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [20, 10, 40, 20],
        "segmentation": [[20, 10, 60, 10, 60, 30]],
        "iscrowd": 0,
    },
    {
        "id": 2,
        "image_id": 2,
        "category_id": 2,
        "bbox": [2, 1, 4, 2],
        "segmentation": {"size": [40, 80], "counts": [99, 5, 3096]},
    },
    {
        "id": 3,
        "image_id": 2,
        "category_id": 2,
        "bbox": [2, 1, 4, 2],
        "segmentation": {"size": [40, 80], "counts": "PPm31OO"},
        "iscrowd": 1,
    },
]
COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 80} for i in (1, 2)],
    "annotations": ENTRIES,
    "categories": [{"id": i, "name": n, "supercategory": "thing"} for i, n in ((1, "mug"), (2, "drill"))],
}
WRONG = (None, "", 0, -1, 1e30, float("nan"), "x", [], {}, [[]], True, [1, 2], {"a": 1}, "5", 2**70)


def places(tree, path=()):
    """Paths of all values in a tree of JSON."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


def of_another_type(tree, seed):
    """A copy with one or two values replaced or left out."""
    rng, copy, done = random.Random(seed), json.loads(json.dumps(tree)), []
    for _ in range(rng.choice((1, 2))):
        *way, last = rng.choice(list(places(copy)))
        at = copy
        for key in way:
            at = at[key]
        if rng.random() < 0.2:
            del at[last]
        else:
            at[last] = rng.choice(WRONG)
        done.append(f"{way} {last}")
    return json.dumps(copy), ", ".join(done)


def test_damaged_coco_files_end_in_images_or_one_sentence(tmp_path):
    logging.disable(logging.WARNING)
    file = tmp_path / "train" / "_annotations.coco.json"
    file.parent.mkdir()
    for i in (1, 2):
        cv2.imwrite(str(tmp_path / "train" / f"{i}.png"), np.full((40, 80, 3), 99, np.uint8))

    def damage(seed):
        if seed % 2:
            text, what = of_another_type(COCO, seed)
        else:
            text, what = mistyped(json.dumps(COCO, indent=1), seed)
        file.write_text(text)
        return what

    def read():
        split, _ = read_dataset(tmp_path)
        batch = CocoSource(split, "cpu", (20, 40), 0).sample(2)
        assert int(batch.label.max()) < len(batch.names)
        return f"{len(split.images)} images"

    try:
        try_seeds("COCO", cases(150), damage, read)
    finally:
        logging.disable(logging.NOTSET)


def as_opencv(file):
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    storage.write("camera_matrix", np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
    storage.release()


@pytest.mark.parametrize("name", [*FILES, "opencv.yml", "opencv.xml", "K.npy"])
def test_damaged_camera_files_end_in_a_camera_or_one_sentence(tmp_path, name):
    file = tmp_path / name
    if name.startswith("opencv"):
        as_opencv(file)
    elif name == "K.npy":
        np.save(file, np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
    else:
        file.write_text(FILES[name])

    def read():
        found = read_camera(file)
        assert found.fx > 0 and np.isfinite((found.fx, found.fy, found.cx, found.cy)).all()
        return "a camera"

    try_seeds(name, cases(20), damage_file(file), read)


def test_damaged_folders_of_images_end_in_frames_or_one_sentence(tmp_path):
    folder = write(
        tmp_path / "a",
        "rgb/{}.png",
        "depth/{}.png",
        camera=("camera.yaml", f"k: [{K.replace(chr(10), ' ').replace(' ', ', ').rstrip(', ')}]"),
    )
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    whole = {file: file.read_bytes() for file in files}

    def damage(seed):
        file, before = files[seed % len(files)], files[(seed - 1) % len(files)]
        before.write_bytes(whole[before])
        broken, what = damaged(whole[file], seed)
        file.write_bytes(broken)
        return f"{file.name}: {what}"

    def read():
        tape = Recording(folder)
        count = len([*tape])
        assert tape.tally.published == count + sum(tape.tally.dropped.values())
        return f"{count} frames"

    try_seeds("images", cases(40), damage, read)
