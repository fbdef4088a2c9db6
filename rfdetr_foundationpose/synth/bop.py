"""Data sets in BOP layout (https://github.com/thodan/bop_toolkit, docs/bop_datasets_format.md), written and read.

<root>/models/obj_000001.ply (mm), models_info.json; <root>/<split>/000000/{rgb,depth,mask_visib}/, scene_camera.json,
scene_gt.json, scene_gt_info.json. Whole-silhouette masks (``mask/``, ``bbox_obj``) are not written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..pose.mesh import ObjectModel
from ..replay.recording import GroundTruth, InstanceTruth
from ..types import CameraIntrinsics, Frame

Progress = Callable[[int], None]


class BopError(ValueError):
    """A folder that is not what the BOP layout asks for; the message names the file."""


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
        if len(model.symmetries) > 1:
            entry["symmetries_discrete"] = [_about_origin(T, model.center) for T in model.symmetries[1:]]
        info[str(number)] = entry
    (folder / "models_info.json").write_text(json.dumps(info, indent=1))
    return {model.name: number for number, model in enumerate(objects, 1)}


def write_scene(
    folder: str | Path,
    frames: Iterable[tuple[Frame, GroundTruth]],
    ids: Mapping[str, int],
    progress: Progress = lambda done: None,
) -> int:
    """Write one scene folder (``000000``); returns its number of images. ``ids``: object name -> obj_id.

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
    for name, content in (("scene_camera", cameras), ("scene_gt", truths), ("scene_gt_info", infos)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return len(cameras)


def read_names(root: str | Path) -> dict[int, str]:
    """obj_id -> name from models_info.json; ``obj_000001`` where the file gives no name."""
    path = Path(root) / "models" / "models_info.json"
    if not path.is_file():
        return {}
    return {int(k): str(v.get("name", f"obj_{int(k):06d}")) for k, v in json.loads(path.read_text()).items()}


def read_bop(
    scene: str | Path, names: Mapping[int, str] | None = None, *, rate: float = 30.0, frame_id: str = "camera"
) -> Iterator[tuple[Frame, GroundTruth]]:
    """Frames of one scene folder in image order, stamped ``rate`` Hz apart from 0.

    names: obj_id -> object name; None reads them from the data set's models. Raises BopError.
    """
    scene = Path(scene)
    cameras, truths = _load(scene / "scene_camera.json"), _load(scene / "scene_gt.json", required=False)
    infos = _load(scene / "scene_gt_info.json", required=False)
    known = dict(read_names(scene.parent.parent) if names is None else names)
    for k, key in enumerate(sorted(cameras, key=int)):
        rgb = cv2.cvtColor(_image(scene / "rgb", f"{int(key):06d}", cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        depth = _image(scene / "depth", f"{int(key):06d}", cv2.IMREAD_UNCHANGED)
        if depth.dtype != np.uint16 or depth.ndim != 2:
            raise BopError(f"depth image {key} of {scene} is {depth.dtype} {depth.shape}, expected 16-bit grey")
        entry = cameras[key]
        camera = CameraIntrinsics.from_matrix(np.asarray(entry["cam_K"]), rgb.shape[1], rgb.shape[0])
        instances, masks = [], {}
        seen: dict[str, int] = {}
        for j, gt in enumerate(truths.get(key, [])):
            number = int(gt["obj_id"])
            name = known.get(number, f"obj_{number:06d}")
            count = seen[name] = seen.get(name, -1) + 1
            instance = name if count == 0 else f"{name}_{count}"
            T = _matrix(gt["cam_R_m2c"], gt["cam_t_m2c"])
            visible = infos[key][j].get("visib_fract") if key in infos else None
            instances.append(InstanceTruth(instance, name, T, visible))
            file = scene / "mask_visib" / f"{int(key):06d}_{j:06d}.png"
            if file.is_file():
                masks[instance] = _image(file.parent, file.stem, cv2.IMREAD_GRAYSCALE) > 0
        world: NDArray[np.float64] | None = None
        if "cam_R_w2c" in entry:
            world = np.asarray(np.linalg.inv(_matrix(entry["cam_R_w2c"], entry["cam_t_w2c"])), np.float64)
        scale = float(entry.get("depth_scale", 1.0)) * 0.001
        frame = Frame(round(k * 1e9 / rate), frame_id, np.asarray(rgb, np.uint8), depth, scale, camera, masks)
        yield frame, GroundTruth(tuple(instances), world)


def scene_folders(root: str | Path) -> list[Path]:
    """Scene folders of a data set, of one split or of one scene, in order. Raises BopError when there are none."""
    root = Path(root)
    if (root / "scene_camera.json").is_file():
        return [root]
    found = sorted({p.parent for p in [*root.glob("*/scene_camera.json"), *root.glob("*/*/scene_camera.json")]})
    if not found:
        raise BopError(f"{root} holds no scene_camera.json, neither itself nor in <split>/<scene>/")
    return found


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


def _about_origin(T: NDArray[np.float64], center: NDArray[np.float64]) -> list[float]:
    """A symmetry about the model centre as BOP wants it: 16 numbers, in the model's own frame, mm."""
    moved = np.array(T)
    moved[:3, 3] = (T[:3, 3] + center - T[:3, :3] @ center) * 1000
    return [float(v) for v in moved.ravel()]


def _depth_units(frame: Frame) -> tuple[NDArray[np.uint16], float]:
    if frame.depth.dtype == np.uint16:
        return frame.depth, frame.depth_scale * 1000
    metres = np.nan_to_num(frame.depth * frame.depth_scale, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(np.round(metres * 1000), 0, 65535).astype(np.uint16), 1.0


def _matrix(rotation: Sequence[float], translation_mm: Sequence[float]) -> NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3] = np.reshape(rotation, (3, 3))
    T[:3, 3] = np.asarray(translation_mm, np.float64) / 1000
    return T


def _save(path: Path, pixels: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
        raise OSError(f"cannot write {path}")


def _image(folder: Path, stem: str, flags: int) -> NDArray[Any]:
    for suffix in (".png", ".jpg", ".tif"):
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            pixels = cv2.imread(str(path), flags)
            if pixels is None:
                raise BopError(f"{path} cannot be decoded")
            return pixels
    raise BopError(f"{folder} has no image {stem}.png (.jpg, .tif)")


def _load(path: Path, required: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise BopError(f"{path} is missing: not a BOP scene folder")
        return {}
    content: dict[str, Any] = json.loads(path.read_text())
    return content
