"""Attempts on a BOP data set, scored as the BOP challenge does, and the results file that bop_toolkit evaluates."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..objects import ObjectSpec
from ..pose.mesh import read_object
from ..pose.renderer import Views, WarpRenderer
from ..replay.bop import BopDataset, BopInstance
from ..types import CameraIntrinsics, Frame
from .attempts import Attempt
from .bop_metrics import DELTA, BopImage, ScoredPose, average_recall, mspd, mssd, vsd

Array = NDArray[np.float64]
METHOD = "rfdetr-foundationpose"
COLUMNS = ("scene_id", "im_id", "obj_id", "score", "R", "t", "time")
_DELTAS = {"itodd": 0.005}


@dataclass(frozen=True)
class _Geometry:
    """What BOP measures with: the vertices and symmetries of the evaluation model, and its depth as it is rendered."""

    points: Array
    diameter: float
    symmetries: Array
    model: int
    center: Array


class BopScores:
    """Collects estimates image by image. Raises BopError and MeshError for models that cannot be used."""

    def __init__(self, dataset: BopDataset, device: torch.device | str) -> None:
        self._dataset = dataset
        self._delta = next((d for name, d in _DELTAS.items() if name in dataset.folder.name.lower()), DELTA)
        models = [read_object(ObjectSpec(m.name, m.eval_file, scale=0.001)) for m in dataset.models]
        self._renderer = WarpRenderer(models, device)
        self._geometries = {
            m.name: _Geometry(m.vertices(), m.diameter(), m.symmetries(), i, np.asarray(model.center, np.float64))
            for i, (m, model) in enumerate(zip(dataset.models, models, strict=True))
        }
        self._images: list[BopImage] = []

    def add(self, frame: Frame, instances: Sequence[BopInstance], attempts: Sequence[Attempt]) -> None:
        """One image: the instances that were to be found, and what was found. ``attempts`` without a pose count as misses."""
        measured = np.asarray(frame.depth, np.float64) * frame.depth_scale
        measured[~np.isfinite(measured)] = 0.0
        for name in sorted({i.object for i in instances}):
            truths = [i for i in instances if i.object == name]
            image = BopImage(name, [t.index for t in truths])
            geometry = self._geometries[name]
            rendered = {t.index: self.depth(name, t.T_cam_obj, frame.camera) for t in truths}
            for attempt in attempts:
                if attempt.object == name and attempt.T_cam_obj is not None:
                    errors = self._errors(attempt.T_cam_obj, truths, rendered, measured, frame.camera, geometry)
                    image.estimates.append(ScoredPose(attempt.confidence or 0.0, errors))
            self._images.append(image)

    def _errors(
        self,
        pose: Array,
        truths: Sequence[BopInstance],
        rendered: Mapping[int, NDArray[np.float32]],
        measured: Array,
        camera: CameraIntrinsics,
        geometry: _Geometry,
    ) -> dict[int, tuple[Sequence[float], float, float]]:
        name = truths[0].object
        depth = self.depth(name, pose, camera)
        g, K = geometry, camera.K
        return {
            t.index: (
                vsd(depth, rendered[t.index], measured, K, g.diameter, self._delta),
                mssd(pose, t.T_cam_obj, g.points, g.symmetries) / g.diameter,
                mspd(pose, t.T_cam_obj, K, g.points, g.symmetries) * 640 / camera.width,
            )
            for t in truths
        }

    def depth(self, name: str, T_cam_obj: Array, camera: CameraIntrinsics) -> NDArray[np.float32]:
        """(H, W) metres of a model in a pose, 0 beside it. bop_toolkit's renderer has pixel i at i + 0.5 of the image plane."""
        geometry, device = self._geometries[name], self._renderer.device
        pose = np.array(T_cam_obj, np.float64)
        pose[:3, 3] += pose[:3, :3] @ geometry.center
        views = Views(
            torch.tensor(pose[None], dtype=torch.float32, device=device),
            torch.tensor([geometry.model], dtype=torch.int32, device=device),
            torch.tensor([[0.0, 0.0, camera.width, camera.height]], device=device),
            torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32, device=device),
        )
        rendering = self._renderer.render(views, (camera.height, camera.width))
        return np.asarray(rendering.xyz[0, ..., 2].cpu().numpy(), np.float32)

    def figures(self) -> dict[str, Any]:
        """ "all" and by object: ar, ar_vsd, ar_mssd, ar_mspd, and the number of instances to be found."""

        def of(images: Sequence[BopImage]) -> dict[str, Any]:
            return average_recall(images) | {"targets": sum(len(i.truths) for i in images)}

        names = sorted({i.object for i in self._images})
        return {
            "all": of(self._images),
            "by_object": {name: of([i for i in self._images if i.object == name]) for name in names},
        }


def results_files(dataset: BopDataset) -> dict[str, str]:
    """Sensor -> name of its results file; bop_toolkit splits it at "_": method, then data set, split and sensor joined by "-"."""
    names = {}
    for sensor in sorted({scene.sensor for scene in dataset.scenes}):
        parts = [p.replace("_", "-") for p in (dataset.folder.resolve().name, dataset.split, sensor) if p]
        names[sensor] = f"{METHOD}_{'-'.join(parts)}.csv"
    return names


def write_results(folder: Path, dataset: BopDataset, attempts: Sequence[Attempt]) -> list[Path]:
    """Poses in the columns of the BOP challenge, a file for each sensor, named as bop_toolkit expects.

    R: nine numbers, row by row. t: millimetres. time: seconds for all poses of the image.
    """
    ids = {model.name: model.id for model in dataset.models}
    seconds: dict[tuple[str, int], float] = {}
    for a in attempts:
        seconds[a.scene, a.frame] = seconds.get((a.scene, a.frame), 0.0) + a.milliseconds / 1e3
    rows: dict[str, list[list[Any]]] = {}
    for a in attempts:
        scene, _, sensor = a.scene.partition("/")
        if a.T_cam_obj is None:
            rows.setdefault(sensor, [])
            continue
        numbers = (
            " ".join(f"{v:.9g}" for v in a.T_cam_obj[:3, :3].ravel()),
            " ".join(f"{v * 1e3:.9g}" for v in a.T_cam_obj[:3, 3]),
        )
        row = [_scene_id(scene), a.frame, ids[a.object], f"{a.confidence or 0.0:.6f}", *numbers]
        rows.setdefault(sensor, []).append([*row, f"{seconds[a.scene, a.frame]:.6f}"])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sensor, name in results_files(dataset).items():
        if sensor in rows:
            with (folder / name).open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(rows[sensor])
            written.append(folder / name)
    return written


def _scene_id(name: str) -> int | str:
    return int(name) if name.isdigit() else name
