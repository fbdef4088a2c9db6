"""What is good and bad about a mesh file, for somebody who wants its poses: size, unit, faces, colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..objects import ObjectSpec
from ..pose.mesh import MeshError, ObjectModel, read_object

PLAUSIBLE = (0.02, 1.0)
"""Things that are handled and seen by an RGB-D camera have diameters (m) between these."""
UNITS = {1.0: "metres", 0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches"}
"""These metres per mesh unit are tried in this order."""
MANY_FACES = 100_000
FAR_ORIGIN = 5.0
"""The origin of what was made for itself is not so many diameters away."""
FEW_TEXELS = 2.0
"""With fewer texels a millimetre of surface a print blurs at a camera distance of 0.5 m (a pixel is 0.8 mm there)."""


@dataclass(frozen=True)
class MeshReport:
    """model: loaded at ``scale`` metres a unit. good: what is as it should be; advice: what might be better."""

    model: ObjectModel
    scale: float
    good: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def check_mesh(path: Path, name: str, scale: float | None = None) -> MeshReport:
    """Load and judge a mesh file. scale: metres per mesh unit, None: suggested from the size. Raises MeshError."""
    # At this scale nothing that anybody could mean is refused for its size.
    probe = read_object(ObjectSpec(name, path, scale=1e-4))
    units = probe.diameter / 1e-4
    if not units > 0:
        raise MeshError(f"{path} has no extent: all its vertices are in one place")
    suggested, remark = suggest_scale(units, path.suffix.lower(), probe.unit)
    chosen = scale or suggested
    model = read_object(ObjectSpec(name, path, scale=chosen))
    report = MeshReport(model, chosen)
    low, high = PLAUSIBLE
    size = " x ".join(f"{1e3 * v:.0f}" if model.diameter > 0.01 else f"{1e3 * v:.2g}" for v in model.extents)
    sentence = f"{size} mm at scale {chosen:g} ({UNITS.get(chosen, 'own unit')})"
    if scale is not None:
        remark = ""
    if not low <= model.diameter <= high:
        report.advice.append(
            f"{sentence}: that is no usual size; measure the object and set --scale to metres per mesh unit"
        )
    else:
        (report.advice if remark else report.good).append(sentence + (f"; {remark}" if remark else ""))
    for text in (model.description, *model.warnings):
        if "measures only" not in text:
            (report.good if "; colour: " in text else report.advice).append(_without_name(text, name))
    _judge_origin(report)
    _judge_shape(report)
    _judge_colour(report)
    return report


def suggest_scale(units: float, suffix: str, told: float | None = None) -> tuple[float, str]:
    """Metres per mesh unit for a diameter in mesh units, and a remark where it is a guess. told: metres per unit as the file says."""
    low, high = PLAUSIBLE
    gltf = suffix in (".glb", ".gltf")
    first = 1.0 if gltf or told is None else told
    if low <= units * first <= high:
        return first, ""
    fitting = [scale for scale in UNITS if low <= units * scale <= high]
    if not fitting:
        return first, ""
    if gltf:
        return fitting[0], "glTF is in metres by definition, so whatever wrote this file got its unit wrong"
    if told is not None:
        return fitting[0], (
            f"by its own word a unit is {told:g} m, by which it would measure {units * told:.3g} m: whatever wrote this file "
            "got its unit wrong"
        )
    remark = ""
    if len(fitting) > 1:
        others = ", ".join(f"--scale {s:g} if it is in {UNITS[s]} ({1e3 * units * s:.0f} mm)" for s in fitting[1:])
        remark = f"a guess from the size: {others}"
    return fitting[0], remark


def _without_name(text: str, name: str) -> str:
    return text.removeprefix(f"object {name}: ")


def _judge_origin(report: MeshReport) -> None:
    """Poses are of the mesh's origin: where that is far away, as in scans with map coordinates, a small turn moves it far."""
    model = report.model
    away = float(np.linalg.norm(model.center))
    if away > FAR_ORIGIN * model.diameter:
        report.advice.append(
            f"its origin is {away:.4g} m from its middle, and poses are of the origin: a turn by 1 degree moves it by "
            f"{away * np.deg2rad(1):.2g} m; put the origin into the object before exporting it"
        )


def _judge_shape(report: MeshReport) -> None:
    model = report.model
    arrays = model.arrays
    vertices, faces = arrays.vertices.astype(np.float64), arrays.faces
    area = triangle_areas(vertices, faces)
    count = f"{len(faces):,} triangles"
    if len(faces) > MANY_FACES:
        report.advice.append(
            f"{count}: reduce them to some {MANY_FACES // 2:,} (Blender: Decimate) for speed and memory"
        )
    else:
        report.good.append(count)
    flat = int((area < 1e-12 * model.diameter**2).sum())
    if flat > 0.01 * len(faces):
        report.advice.append(f"{flat:,} triangles without area; merge vertices by distance")
    welded = weld(vertices, faces, 1e-5 * model.diameter)
    _judge_parts(report, welded, area)
    edges = np.sort(np.concatenate([welded[:, [0, 1]], welded[:, [1, 2]], welded[:, [2, 0]]]), 1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, uses = np.unique(edges, axis=0, return_counts=True)
    open_share = float((uses == 1).sum() / max(len(uses), 1))
    if open_share == 0:
        report.good.append("closed surface")
    elif open_share > 0.02:
        report.advice.append(
            f"{open_share:.0%} of the edges are open: holes are seen through, where the camera sees a surface; close them"
        )


def _judge_parts(report: MeshReport, welded: NDArray[np.int64], area: NDArray[np.float64]) -> None:
    """Pieces far from the rest widen the box, and with it everything that is relative to the size."""
    ends, size = (welded[:, [0, 1]].ravel(), welded[:, [1, 2]].ravel()), int(welded.max()) + 1
    count, label = connected_components(coo_array((np.ones(2 * len(welded)), ends), (size, size)), directed=False)
    if count < 2:
        return
    part = label[welded[:, 0]]
    shares = np.bincount(part, area) / max(area.sum(), 1e-30)
    specks = shares < 0.002
    centres = report.model.arrays.vertices[report.model.arrays.faces].mean(1)
    kept = centres[~specks[part]]
    if not len(kept) or not specks[part].any():
        return
    grown = np.ptp(report.model.arrays.vertices[np.unique(report.model.arrays.faces)], axis=0)
    if (
        grown > 1.02 * np.ptp(report.model.arrays.vertices[np.unique(report.model.arrays.faces[~specks[part]])], axis=0)
    ).any():
        report.advice.append(
            f"{int((shares < 0.002).sum())} specks lie apart from the object and make its box larger; delete loose parts"
        )


def _judge_colour(report: MeshReport) -> None:
    model, arrays = report.model, report.model.arrays
    if arrays.texture is not None and arrays.uv is not None:
        height, width = arrays.texture.shape[:2]
        uv_area = triangle_areas(
            np.concatenate([arrays.uv * (width, height), np.zeros((*arrays.uv.shape[:2], 1), np.float32)], 2).reshape(
                -1, 3
            ),
            np.arange(3 * len(arrays.faces)).reshape(-1, 3),
        ).sum()
        surface = triangle_areas(arrays.vertices.astype(np.float64), arrays.faces).sum() * 1e6
        density = float(np.sqrt(uv_area / max(surface, 1e-9)))
        text = f"texture {width} x {height}, {density:.1f} texels a millimetre"
        if density < 0.5 * FEW_TEXELS / 2:
            report.advice.append(f"{text}: coarse; bake a larger one (1024 x 1024 is enough, more is reduced to that)")
        else:
            report.good.append(text)
        if float(arrays.texture.std()) < 2:
            report.advice.append("the texture is of one colour: sides that differ in print cannot be told apart")
    elif model.color_source == "vertex colours":
        spacing = float(np.sqrt(triangle_areas(arrays.vertices.astype(np.float64), arrays.faces).mean()))
        text = f"vertex colours, {1e3 * spacing:.1f} mm apart"
        (report.advice if spacing > 0.005 else report.good).append(
            text + (": a print is lost between them; use a texture" if spacing > 0.005 else "")
        )


def triangle_areas(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """(F,) areas."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    result: NDArray[np.float64] = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return result


def weld(vertices: NDArray[np.float64], faces: NDArray[np.integer], distance: float) -> NDArray[np.int64]:
    """Faces over vertices that are one where they are nearer than ``distance``, as files split them at seams."""
    tree = cKDTree(vertices)
    pairs = tree.query_pairs(distance, output_type="ndarray")
    _, label = connected_components(
        coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2), directed=False
    )
    result: NDArray[np.int64] = label[faces].astype(np.int64)
    return result
