"""A small data set in the BOP layout: a box before a wall, three images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh

# The eggbox of LM and LM-O, as their models_info.json has it: a turn of 179.8 degrees.
EGGBOX = [
    *(-0.999964, -0.00333777, -0.0077452, 0.232611),
    *(0.00321462, -0.999869, 0.0158593, 0.694388),
    *(-0.00779712, 0.0158338, 0.999844, -0.0792063),
    *(0, 0, 0, 1),
]
HEIGHT, WIDTH = 120, 160


def make_bop(
    folder: Path,
    *,
    mesh: str = "obj_000001.ply",
    models: str = "models",
    split: str = "test",
    info: dict[str, Any] | None = None,
    suffix: str = "",
    images: int = 3,
) -> Path:
    """suffix: of the sensor, ``_cam1``. info: of the object in models_info.json, besides its diameter."""
    (folder / models).mkdir(parents=True, exist_ok=True)
    trimesh.creation.box((100, 80, 60)).export(folder / models / mesh)
    listed = {"1": {"diameter": 141.4, **(info or {})}}
    (folder / models / "models_info.json").write_text(json.dumps(listed))
    scene = scene_of(folder, split)
    for kind in ("rgb", "depth", "mask_visib"):
        (scene / f"{kind}{suffix}").mkdir(parents=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[49:71, 66:94] = 255
    for i in range(images):
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        picture[mask > 0] = (20, 20, 200)
        depth = np.where(mask > 0, 520, 800).astype(np.uint16)
        cv2.imwrite(str(scene / f"rgb{suffix}/{i:06d}.png"), picture)
        cv2.imwrite(str(scene / f"depth{suffix}/{i:06d}.png"), depth)
        cv2.imwrite(str(scene / f"mask_visib{suffix}/{i:06d}_000000.png"), mask)
    truth = {"cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [0.0, 0, 550], "obj_id": 1}
    camera = {"cam_K": [150, 0, 80, 0, 150, 60, 0, 0, 1.0], "depth_scale": 1.0}
    contents = {"scene_gt": [truth], "scene_camera": camera, "scene_gt_info": [{"visib_fract": 1.0}]}
    for name, value in contents.items():
        (scene / f"{name}{suffix}.json").write_text(json.dumps({str(i): value for i in range(images)}))
    return folder


def scene_of(folder: Path, split: str = "test") -> Path:
    return folder / split / "000001"


def edit(file: Path, change: Any) -> None:
    """Load JSON, let ``change`` work on it, write it back."""
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))
