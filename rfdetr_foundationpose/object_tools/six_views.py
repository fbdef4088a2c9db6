"""A mesh seen from its six sides, as the pose stage renders it: what is wrong with size, up axis or texture shows there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..pose.mesh import ObjectModel
from ..pose.renderer import Views, WarpRenderer

SIDES = {
    "from +x": ((1, 0, 0), (0, 0, 1)),
    "from +y": ((0, 1, 0), (0, 0, 1)),
    "from +z (above)": ((0, 0, 1), (0, 1, 0)),
    "from -x": ((-1, 0, 0), (0, 0, 1)),
    "from -y": ((0, -1, 0), (0, 0, 1)),
    "from -z (below)": ((0, 0, -1), (0, 1, 0)),
}
"""Each side has a direction where the camera stands and what is up in the picture, in the mesh's frame."""
TILE = 420
BACKGROUND = 0.78
AXES = (("x", (220, 40, 40)), ("y", (30, 170, 30)), ("z", (50, 90, 230)))

Picture = NDArray[np.uint8]


def render_sides(model: ObjectModel, device: torch.device | str = "cpu") -> list[tuple[str, Picture]]:
    """(side, (TILE, TILE, 3) uint8 RGB) for each of SIDES, with the mesh's axes drawn from its origin."""
    distance = 2.2 * model.diameter
    poses = np.stack([_pose(np.array(eye, float), np.array(up, float), distance) for eye, up in SIDES.values()])
    focal = 0.86 * TILE * distance / model.diameter
    camera = np.array([[focal, focal, TILE / 2, TILE / 2]], np.float32)
    count = len(poses)

    def put(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    views = Views(
        put(poses.astype(np.float32)),
        torch.zeros(count, dtype=torch.int32, device=device),
        put(np.tile(np.array([[0, 0, TILE, TILE]], np.float32), (count, 1))),
        put(camera),
    )
    rendering = WarpRenderer([model], device).render(views, (TILE, TILE))
    # Light from the camera shows the shape of what has no print.
    shade = (0.45 + 0.55 * rendering.normal[..., 2].abs())[..., None]
    rgb = torch.where(rendering.mask[..., None], rendering.rgb * shade, torch.full_like(rendering.rgb, BACKGROUND))
    pictures = (255 * rgb.clamp(0, 1)).to(torch.uint8).cpu().numpy()
    named = []
    for name, picture, pose in zip(SIDES, pictures, poses, strict=True):
        _draw_axes(picture, pose, model, float(focal))
        named.append((name, picture))
    return named


def write_sides(path: Path, model: ObjectModel, device: torch.device | str = "cpu") -> None:
    """One PNG with the six sides and the size."""
    tiles = []
    for name, picture in render_sides(model, device):
        tile = np.full((TILE + 30, TILE, 3), 255, np.uint8)
        tile[:TILE] = picture
        cv2.putText(tile, name, (8, TILE + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        tile[0], tile[:, 0] = 200, 200
        tiles.append(tile)
    rows = [np.concatenate(tiles[:3], 1), np.concatenate(tiles[3:], 1)]
    head = np.full((34, rows[0].shape[1], 3), 255, np.uint8)
    size = " x ".join(f"{1e3 * v:.1f}" for v in model.extents)
    text = f"{model.name}: {size} mm (x, y, z), {model.color_source}; red x, green y, blue z from the mesh's origin"
    cv2.putText(head, text, (8, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([head, *rows])).save(path)


def _pose(eye: NDArray[np.float64], up: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """T_cam_center (4, 4) of a camera (x right, y down, z forward) at ``eye`` times ``distance``, looking at the centre."""
    z = -eye
    y = -up
    x = np.cross(y, z)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, y, z])
    T[:3, 3] = (0, 0, distance)
    return T


def _draw_axes(picture: Picture, pose: NDArray[np.float64], model: ObjectModel, focal: float) -> None:
    length = 0.35 * model.diameter
    ends = np.concatenate([np.zeros((1, 3)), np.eye(3) * length]) - model.center
    seen = ends @ pose[:3, :3].T + pose[:3, 3]
    uv = seen[:, :2] / np.maximum(seen[:, 2:], 1e-6) * focal + TILE / 2
    if not np.abs(uv).max() < 1e4:
        return
    start = (round(float(uv[0, 0])), round(float(uv[0, 1])))
    for (name, color), end in zip(AXES, uv[1:], strict=True):
        if np.linalg.norm(end - uv[0]) < 8:
            continue
        tip = (round(float(end[0])), round(float(end[1])))
        cv2.arrowedLine(picture, start, tip, color, 2, cv2.LINE_AA, tipLength=0.08)
        cv2.putText(picture, name, (tip[0] + 4, tip[1] + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, 1, cv2.LINE_AA)
