"""Data sets in BOP layout (https://github.com/thodan/bop_toolkit, docs/bop_datasets_format.md), written; replay/bop.py reads them.

<root>/models/obj_000001.ply (mm), models_info.json; <root>/<split>/000000/{rgb,depth,mask_visib}/, scene_camera.json,
scene_gt.json, scene_gt_info.json. Whole-silhouette masks (``mask/``, ``bbox_obj``) are not written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..pose.mesh import ObjectModel
from ..pose.symmetry import CONTINUOUS_STEP_DEG, rotation_angle
from ..replay.bop_models import axis_point
from ..replay.recording import GroundTruth
from ..types import Frame

Progress = Callable[[int], None]


def write_models(root: str | Path, objects: Sequence[ObjectModel]) -> dict[str, int]:
    """Write <root>/models; returns object name -> obj_id (from 1). The name is also kept in models_info.json."""
    folder = Path(root) / "models"
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {}
    for number, model in enumerate(objects, 1):
        points = (model.arrays.vertices.astype(np.float64) + model.center) * 1000
        _write_ply(folder / f"obj_{number:06d}.ply", model, points)
        low, size = points.min(axis=0), np.ptp(points, axis=0)
        entry: dict[str, Any] = {"name": model.name, "diameter": model.diameter * 1000}
        entry.update({f"min_{a}": float(v) for a, v in zip("xyz", low, strict=True)})
        entry.update({f"size_{a}": float(v) for a, v in zip("xyz", size, strict=True)})
        info[str(number)] = entry | _symmetries(model)
    (folder / "models_info.json").write_text(json.dumps(info, indent=1))
    return {model.name: number for number, model in enumerate(objects, 1)}


def write_scene(
    folder: str | Path,
    frames: Iterable[tuple[Frame, GroundTruth]],
    ids: Mapping[str, int],
    progress: Progress = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Write one scene folder (``000000``), or what there is of it at ``stop``; returns its number of images.

    ids: object name -> obj_id.

    Depth is written in the frame's own units with the matching depth_scale; float depth as millimetres.
    """
    folder = Path(folder)
    for part in ("rgb", "depth", "mask_visib"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    cameras: dict[str, Any] = {}
    truths: dict[str, Any] = {}
    infos: dict[str, Any] = {}
    for i, (frame, truth) in enumerate(frames):
        depth, scale = _depth_units(frame)
        _save(folder / "rgb" / f"{i:06d}.png", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
        _save(folder / "depth" / f"{i:06d}.png", depth)
        cameras[str(i)] = {"cam_K": frame.camera.K.ravel().tolist(), "depth_scale": scale}
        if truth.T_world_cam is not None:
            T = np.linalg.inv(truth.T_world_cam)
            cameras[str(i)].update({"cam_R_w2c": T[:3, :3].ravel().tolist(), "cam_t_w2c": (T[:3, 3] * 1000).tolist()})
        truths[str(i)], infos[str(i)] = [], []
        for j, instance in enumerate(truth.instances):
            T = instance.T_cam_obj
            truths[str(i)].append(
                {
                    "cam_R_m2c": T[:3, :3].ravel().tolist(),
                    "cam_t_m2c": (T[:3, 3] * 1000).tolist(),
                    "obj_id": ids[instance.object],
                }
            )
            mask = np.asarray(frame.masks.get(instance.name, np.zeros(depth.shape, np.bool_)))
            _save(folder / "mask_visib" / f"{i:06d}_{j:06d}.png", mask.astype(np.uint8) * 255)
            info = {"bbox_visib": list(cv2.boundingRect(mask.astype(np.uint8))), "px_count_visib": int(mask.sum())}
            if instance.visibility is not None:
                info["visib_fract"] = instance.visibility
            infos[str(i)].append(info)
        progress(i + 1)
        if stop():
            break
    for name, content in (("scene_camera", cameras), ("scene_gt", truths), ("scene_gt_info", infos)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return len(cameras)


def _write_ply(path: Path, model: ObjectModel, points: NDArray[np.float64]) -> None:
    """Binary PLY with normals and colours, or texture coordinates and the texture beside it."""
    arrays = model.arrays
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    textured = arrays.texture is not None and arrays.uv is not None
    columns += (
        [("texture_u", "<f4"), ("texture_v", "<f4")] if textured else [(c, "u1") for c in ("red", "green", "blue")]
    )
    vertices = np.zeros(len(points), columns)
    for i, axis in enumerate("xyz"):
        vertices[axis], vertices[f"n{axis}"] = points[:, i], arrays.normals[:, i]
    lines = ["ply", "format binary_little_endian 1.0"]
    if arrays.texture is not None and arrays.uv is not None:
        uv = np.zeros((len(points), 2), np.float32)
        uv[arrays.faces.reshape(-1)] = arrays.uv.reshape(-1, 2)
        vertices["texture_u"], vertices["texture_v"] = uv[:, 0], uv[:, 1]
        _save(path.with_suffix(".png"), cv2.cvtColor(arrays.texture, cv2.COLOR_RGB2BGR))
        lines.append(f"comment TextureFile {path.with_suffix('.png').name}")
    else:
        for i, color in enumerate(("red", "green", "blue")):
            vertices[color] = np.round(arrays.colors[:, i] * 255)
    kinds = {"<f4": "float", "u1": "uchar"}
    lines += [f"element vertex {len(points)}", *(f"property {kinds[t]} {n}" for n, t in columns)]
    lines += [f"element face {len(arrays.faces)}", "property list uchar int vertex_indices", "end_header"]
    faces = np.zeros(len(arrays.faces), [("n", "u1"), ("v", "<i4", 3)])
    faces["n"], faces["v"] = 3, arrays.faces
    path.write_bytes("\n".join(lines).encode() + b"\n" + vertices.tobytes() + faces.tobytes())


def _symmetries(model: ObjectModel) -> dict[str, Any]:
    """symmetries_continuous and symmetries_discrete of models_info.json, without those that are empty.

    A model keeps looks, no axes: an axis of any turn is one all of whose turns by CONTINUOUS_STEP_DEG are looks.
    """
    looks = model.symmetries
    small = np.isclose(rotation_angle(looks[:, :3, :3]), np.deg2rad(CONTINUOUS_STEP_DEG), atol=1e-6)
    axes: list[NDArray[np.float64]] = []
    for T in looks[small]:
        turns = np.stack([np.linalg.matrix_power(T, k) for k in range(360 // CONTINUOUS_STEP_DEG)])
        # An axis is met twice, once in either sense.
        if _among(turns, looks).all() and not any(_among(T[None], known)[0] for known in axes):
            axes.append(turns)
    discrete: list[NDArray[np.float64]] = []
    if len(axes) < 2:  # two axes of any turn make a ball: every other rotation is theirs
        turns = axes[0] if axes else np.eye(4)[None]
        left = ~_among(looks, turns)
        while left.any():
            discrete.append(looks[left.argmax()])
            left &= ~_among(looks, turns @ discrete[-1])
    found: dict[str, Any] = {}
    if axes:
        moved = [_about_origin(turns[1], model.center) for turns in axes]
        found["symmetries_continuous"] = [{"axis": _direction(T), "offset": axis_point(T).tolist()} for T in moved]
    if discrete:
        found["symmetries_discrete"] = [_about_origin(T, model.center).ravel().tolist() for T in discrete]
    return found


def _among(transforms: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) bool: which of (N, 4, 4) have the rotation of one of (M, 4, 4); symmetries of one object are then equal."""
    differences = np.abs(transforms[:, None, :3, :3] - known[None, :, :3, :3]).max(axis=(2, 3))
    return np.asarray(differences.min(axis=1) < 1e-6)


def _direction(T: NDArray[np.float64]) -> list[float]:
    vector = Rotation.from_matrix(T[:3, :3]).as_rotvec()
    return [float(v) for v in vector / np.linalg.norm(vector)]


def _about_origin(T: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
    """A symmetry about the model centre as BOP wants it: (4, 4) in the model's own frame, mm."""
    moved = np.array(T)
    moved[:3, 3] = (T[:3, 3] + center - T[:3, :3] @ center) * 1000
    return moved


def _depth_units(frame: Frame) -> tuple[NDArray[np.uint16], float]:
    if frame.depth.dtype == np.uint16:
        return frame.depth, frame.depth_scale * 1000
    metres = np.nan_to_num(frame.depth * frame.depth_scale, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(np.round(metres * 1000), 0, 65535).astype(np.uint16), 1.0


def _save(path: Path, pixels: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
        raise OSError(f"cannot write {path}")
