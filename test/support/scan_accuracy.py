"""How far a scanned mesh is from its object, and how much worse it registers: scans of generated recordings beside the true meshes.

python test/support/scan_accuracy.py mug:1,0 drill:1,4 soup_can:1,2 --frames 40 --device cpu

Each object is named with the ways it stands in its passes (``generate scan --pose``); it is scanned in the first pass alone and in
all of them. Then it is registered in random scenes of the generator, among neighbours that hide it, by masks faulty like a detector's,
with the true mesh and each scanned one in the same frames. A registration takes about 3 s of a CPU core.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import trimesh
import warp as wp
from scipy.spatial import cKDTree

from rfdetr_foundationpose.config import from_flat
from rfdetr_foundationpose.evaluate.attempts import MIN_MASK, Evaluator, detector_like_mask
from rfdetr_foundationpose.object_tools.board import BOARDS
from rfdetr_foundationpose.object_tools.scan import Scan, scan
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.pose.build import build_estimator
from rfdetr_foundationpose.pose.mesh import ObjectModel, load_object
from rfdetr_foundationpose.process import prepare_process
from rfdetr_foundationpose.replay.metrics import ADDS_THRESHOLD, ObjectGeometry, PoseError, pose_error
from rfdetr_foundationpose.resources import default_objects_file
from rfdetr_foundationpose.synth.batch_frames import host_frames
from rfdetr_foundationpose.synth.scan_video import ScanSettings, ScanVideo
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler

BOARD = BOARDS["a4"]
CONTENT = SceneContent(distractors=24, surfaces=16, max_targets=1, max_distractors=7)
LEAST_VISIBLE, LEAST_PIXELS = 0.45, 1200


@wp.kernel
def count_free(
    mesh: wp.uint64, points: wp.array(dtype=wp.vec3), rays: wp.array(dtype=wp.vec3), free: wp.array(dtype=wp.int32)
):
    """How many of the rays leave the mesh from each point."""
    i = wp.tid()
    for k in range(rays.shape[0]):
        if not wp.mesh_query_ray(mesh, points[i] + 0.0002 * rays[k], rays[k], 10.0).result:
            free[i] = free[i] + 1


def outside(mesh: trimesh.Trimesh, count: int = 60_000) -> np.ndarray:
    """Points on the surface that something outside can see: parts of a mesh may reach into each other."""
    points, _ = trimesh.sample.sample_surface(mesh, count, seed=0)
    rays = np.random.default_rng(0).normal(size=(100, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    with wp.ScopedDevice("cpu"):
        shape = wp.Mesh(
            wp.array(mesh.vertices, dtype=wp.vec3), wp.array(np.asarray(mesh.faces, np.int32).ravel(), dtype=wp.int32)
        )
        free = wp.zeros(count, dtype=wp.int32)
        wp.launch(count_free, count, [shape.id, wp.array(points, dtype=wp.vec3), wp.array(rays, dtype=wp.vec3), free])
        return np.asarray(points)[free.numpy() > 0]


def apart(found: Scan, made: ScanVideo) -> str:
    """Median and 90th percentile, mm, from what can be seen of the true surface to the scanned one, and back."""
    T = np.linalg.inv(found.T_board_obj) @ made.T_board_obj
    arrays = made.model.arrays
    true = trimesh.Trimesh(arrays.vertices.astype(float) + made.model.center, arrays.faces, process=False)
    true.apply_transform(T)
    seen, scanned = outside(true), trimesh.sample.sample_surface(found.textured, 200_000, seed=1)[0]
    there = 1e3 * cKDTree(scanned).query(seen[::3])[0]
    back = 1e3 * cKDTree(seen).query(scanned[::10])[0]
    return " ".join(f"{np.quantile(d, q):.2f}" for d in (there, back) for q in (0.5, 0.9))


def scenes(model: ObjectModel, device: str, seed: int) -> Iterator[tuple]:
    """Frame, mask and true pose, without end."""
    sampler = SceneSampler([model], device, (480, 640), seed, CONTENT)
    rng = np.random.default_rng(seed)
    while True:
        batch = sampler.sample(8)
        for i, frame in enumerate(host_frames(batch, 0)):
            mask = batch.mask(i, 0).cpu().numpy()
            if batch.label[i, 0] == 0 and batch.visibility[i, 0] >= LEAST_VISIBLE and mask.sum() >= LEAST_PIXELS:
                faulty = detector_like_mask(mask, rng)
                if faulty.sum() >= MIN_MASK:
                    yield frame, faulty, batch.T_cam_obj[i, 0]


def compare(name: str, meshes: Mapping[str, tuple[Path, np.ndarray]], frames: int, device: str, seed: int) -> None:
    """Prints a line for each scanned mesh. meshes: label -> file, and (4, 4) its frame <- the true mesh's."""
    true = {s.name: s for s in load_objects(default_objects_file())}[name]
    specs = {"true": dataclasses.replace(true, max_instances=1)}
    for label, (path, _) in meshes.items():
        specs[label] = dataclasses.replace(specs["true"], name=f"{name}_{label}", mesh=path, scale=1.0)
    place = prepare_process(torch.device(device))
    geometry = ObjectGeometry.from_spec(true)
    evaluator = Evaluator(
        build_estimator(from_flat({"device": device}), list(specs.values())),
        {s.name: geometry for s in specs.values()},
        place,
    )
    errors: dict[str, list[PoseError | None]] = {label: [] for label in specs}
    stream = scenes(load_object(true), device, seed)
    for index in range(frames):
        frame, mask, truth = next(stream)
        prepared = evaluator.prepare(frame)
        for label, spec in specs.items():
            T = meshes[label][1] if label in meshes else np.eye(4)
            done = evaluator.register(
                prepared, mask, truth @ np.linalg.inv(T), object=spec.name, scene=name, index=index
            )
            found = done.T_cam_obj
            errors[label].append(None if found is None else pose_error(found @ T, truth, geometry))

    def right(label: str, ratio: str) -> np.ndarray:
        return np.array([e is not None and getattr(e, ratio) < ADDS_THRESHOLD for e in errors[label]], float)

    for label in meshes:
        line = f"{name:13s} {label:9s} {frames:4d} frames"
        for title, ratio in (("ADD", "add_ratio"), ("ADD-S", "adds_ratio")):
            a, b = right("true", ratio), right(label, ratio)
            spread = np.std(b - a) / np.sqrt(frames)
            line += (
                f"  {title} {a.mean():.3f} -> {b.mean():.3f} ({100 * (b - a).mean():+.1f} +- {100 * spread:.1f} points)"
            )
        for title, key in (("mm", "add_mm"), ("deg", "rotation_deg")):
            a, b = (np.median([getattr(e, key) for e in errors[k] if e is not None]) for k in ("true", label))
            line += f"  {title} p50 {a:.2f} -> {b:.2f}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="*", default=["mug:1,0", "drill:1,4", "spray_bottle:0,3", "soup_can:1,2"])
    parser.add_argument("--frames", type=int, default=20, help="registered with each mesh")
    parser.add_argument("--scan-frames", type=int, default=48, help="of each pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=777)
    asked = parser.parse_args()
    known = {s.name: load_object(s) for s in load_objects(default_objects_file())}
    for entry in asked.objects:
        name, _, ways = entry.partition(":")
        made = [
            ScanVideo(
                known[name],
                (BOARD.picture(4), BOARD.size),
                ScanSettings(frames=asked.scan_frames, rate=asked.scan_frames / 30, pose=int(way), seed=3 * i),
                asked.device,
            )
            for i, way in enumerate((ways or "0").split(","))
        ]
        passes = [[video.frame(i)[0] for i in range(len(video))] for video in made]
        with tempfile.TemporaryDirectory() as folder:
            meshes = {}
            for count in sorted({1, len(passes)}):
                found = scan(passes[:count], BOARD, device=asked.device)
                path = Path(folder) / f"{name}_{count}.glb"
                found.textured.export(path)
                label = "one pass" if count == 1 else f"{count} passes"
                meshes[label] = (path, np.linalg.inv(found.T_board_obj) @ made[0].T_board_obj)
                print(
                    f"{name:13s} {label:9s} mm apart, to the mesh and back, p50 and p90 each: {apart(found, made[0])}"
                )
            if asked.frames:
                compare(
                    name, {k.replace(" ", "_"): v for k, v in meshes.items()}, asked.frames, asked.device, asked.seed
                )


if __name__ == "__main__":
    main()
