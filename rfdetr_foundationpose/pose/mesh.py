"""Object meshes as the pose stage needs them: metres, unit normals, one colour source, diameter and symmetries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..meshes import appearance, cleaning, decimation, others, reading, scene
from ..meshes.diameter import largest_distance
from ..meshes.normals import take_normals
from ..meshes.raw import MeshArrays, MeshError, RawMesh, Surface
from ..objects import ObjectSpec
from .symmetry import symmetry_transforms

__all__ = ["MeshError", "ObjectModel", "load_object", "make_object", "read_object"]

logger = logging.getLogger(__name__)

MAX_PLAUSIBLE_DIAMETER = 5.0
UNITS = {0.001: "millimetres", 1e-6: "micrometres"}
MOST_SURFACES_TOLD = 12
COARSE = 1e-3
"""Coordinates with steps of this part of an object's diameter have lost what the networks see of its shape."""


@dataclass(frozen=True)
class ObjectModel:
    """A loaded object. Arrays are of the mesh moved to its model centre (middle of its bounding box), metres.

    center: (3,) float64, the model centre in the mesh as loaded. diameter: largest vertex distance, m.
    extents: (3,) bounding box size, m. symmetries: (K, 4, 4) float64 about the model centre, identity first.
    color_source: "texture", "vertex colours", "face colours", "uniform colour", "uniform grey", or several of them
    joined by " + ". description: one sentence on its size and where its colours come from. warnings: a sentence for each
    thing that is missing or doubtful. unit: metres per unit of the file as it says itself, None where its format does not.
    """

    name: str
    arrays: MeshArrays
    center: NDArray[np.float64]
    diameter: float
    extents: NDArray[np.float64]
    symmetries: NDArray[np.float64]
    color_source: str
    description: str
    warnings: tuple[str, ...]
    unit: float | None = None

    def to_centered(self, T_cam_obj: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose of the mesh as loaded -> pose of the mesh moved to its model centre."""
        T = np.array(T_cam_obj, dtype=np.float64)
        T[:3, 3] += T[:3, :3] @ self.center
        return T

    def from_centered(self, T_cam_center: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose of the mesh moved to its model centre -> pose of the mesh as loaded."""
        T = np.array(T_cam_center, dtype=np.float64)
        T[:3, 3] -= T[:3, :3] @ self.center
        return T


def load_object(spec: ObjectSpec, log: Callable[[str], object] | None = None) -> ObjectModel:
    """``read_object``, and log the model's description and warnings: with ``log``, where given, in the place of the logger."""
    model = read_object(spec)
    (log or logger.info)(model.description)
    for sentence in model.warnings:
        (log or logger.warning)(sentence)
    return model


def read_object(spec: ObjectSpec) -> ObjectModel:
    """Load the mesh of an objects.yaml entry: OBJ, PLY, GLB, glTF, STL and what trimesh reads (docs/formats.md).

    Logs nothing. Raises MeshError that names the file, the reason and the fix.
    """
    path = Path(spec.mesh)
    if path.is_dir():
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} {others.of_folder(path)}")
    if not path.is_file():
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} does not exist; mesh paths are relative to objects.yaml")
    try:
        raw = reading.read(path)
    except (MeshError, OSError) as error:
        raise MeshError(f"object {spec.name}: mesh {spec.mesh} cannot be read: {error}") from error
    return _make(spec, raw)


def make_object(spec: ObjectSpec, mesh: Any) -> ObjectModel:
    """ObjectModel from a trimesh.Trimesh in the units of ``spec.scale``. Logs nothing. Raises MeshError."""
    return _make(spec, scene.from_trimesh(mesh))


def _make(spec: ObjectSpec, raw: RawMesh) -> ObjectModel:
    prefix = f"object {spec.name}: "
    try:
        cleaning.drop_unusable(raw)
    except MeshError as error:
        raise MeshError(f"{prefix}mesh {spec.mesh}: {error}") from error
    coarse = _steps(raw.vertices) * spec.scale
    raw.vertices = np.asarray(raw.vertices, np.float64) * spec.scale
    low, high = raw.vertices.min(0), raw.vertices.max(0)
    extents, diameter, center = high - low, largest_distance(raw.vertices), (low + high) / 2
    warnings = _check_size(spec, extents, diameter, raw.unit)
    if coarse > COARSE * diameter:
        warnings.append(
            f"{prefix}{spec.mesh}: it lies {float(np.linalg.norm(center)):.4g} m from its origin, where its 32-bit coordinates have "
            f"steps of {coarse:.2g} m, so that its shape is damaged; move it to the origin before exporting it"
        )
    counts = f"{len(raw.vertices)} vertices, {len(raw.faces)} faces"
    if len(raw.faces) > decimation.MOST_FACES:
        unit, raw = raw.unit, decimation.decimate(raw)
        raw.unit = unit
        counts += f" (more than a rendering shows: thinned out to {len(raw.faces)} faces)"
    turned = cleaning.face_outwards(raw)
    if turned:
        counts += f", of which {turned} were inside out and are turned"
    normals = take_normals(raw)
    appearance.used_surfaces(raw)
    if spec.color is not None:
        red, green, blue = (v / 255 for v in spec.color)
        raw.surfaces = [Surface("", "uniform colour", "color of objects.yaml", (red, green, blue))]
        raw.surface = None
        raw.notes = []
    if raw.normals is not None:
        raw.normals, raw.normal_index = normals, None
    before = len(raw.vertices)
    faces_before = raw.faces
    colors, uv, texture = appearance.resolve(raw)
    if len(raw.vertices) != before:
        at = np.zeros(len(raw.vertices), np.int64)
        at[raw.faces.reshape(-1)] = faces_before.reshape(-1)
        normals = normals[at]
    if raw.unit is not None and not np.isclose(raw.unit, spec.scale, rtol=0.01):
        raw.notes.append(f"its unit is {raw.unit:g} m by its own word, but scale is {spec.scale:g}; is that right?")
    warnings += [f"{prefix}{spec.mesh}: {note}" for note in raw.notes]
    if any(s.kind == "uniform grey" for s in raw.surfaces) and not raw.notes:
        warnings.append(
            f"{prefix}{spec.mesh} has neither texture nor vertex colours on {_greys(raw)}, which is rendered grey; set color "
            "in objects.yaml if it has one"
        )
    return ObjectModel(
        spec.name,
        MeshArrays((raw.vertices - center).astype(np.float32), raw.faces, normals, colors, uv, texture),
        center,
        diameter,
        extents,
        symmetry_transforms(spec.discrete, spec.continuous, center),
        " + ".join(dict.fromkeys(s.kind for s in raw.surfaces)),
        f"{prefix}{spec.mesh}: {counts}, {_size(extents)} m; colour: {_told(raw.surfaces)}",
        tuple(warnings),
        raw.unit,
    )


def _steps(vertices: NDArray[np.floating]) -> float:
    """How far apart neighbouring numbers are at the largest coordinate, in mesh units: those of float32 where all are such."""
    largest = float(np.abs(vertices).max(initial=0))
    # Numbers that went through float32 stay as they are when they are rounded to it.
    single = vertices.dtype == np.float32 or bool((vertices[:1000] == vertices[:1000].astype(np.float32)).all())
    return float(np.spacing(np.float32(largest) if single else np.float64(largest)))


def _check_size(spec: ObjectSpec, extents: NDArray[np.float64], diameter: float, told: float | None) -> list[str]:
    """A warning where the object is very small. told: metres per unit as the file says. Raises MeshError where it is impossibly
    large."""
    if not diameter <= MAX_PLAUSIBLE_DIAMETER:
        measured = f"object {spec.name}: mesh {spec.mesh} measures {_size(extents)} m"
        if told is not None and diameter / spec.scale * told <= MAX_PLAUSIBLE_DIAMETER:
            raise MeshError(
                f"{measured}; its unit is {told:g} m by its own word. Set scale: {told:g} for it in objects.yaml"
            )
        for factor, unit in UNITS.items():
            if diameter * factor <= MAX_PLAUSIBLE_DIAMETER:
                raise MeshError(
                    f"{measured}; that looks like {unit}. Set scale: {spec.scale * factor:g} for it in objects.yaml"
                )
        raise MeshError(
            f"{measured}, which no unit explains; a vertex of it may be damaged, or set scale in objects.yaml"
        )
    if diameter < 0.005:
        return [
            f"object {spec.name}: mesh {spec.mesh} measures only {_size(extents)} m; is its unit right? scale is "
            f"{spec.scale:g} metres per mesh unit"
        ]
    return []


def _size(extents: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.4g}" for v in extents)


def _told(surfaces: list[Surface]) -> str:
    """Where the colour of each material comes from; parts that are alike are told once."""
    every = list(dict.fromkeys((s.name, s.source) for s in surfaces))
    if len(every) == 1:
        return every[0][1]
    told = [f"{name or 'without material'}: {source}" for name, source in every[:MOST_SURFACES_TOLD]]
    rest = len(every) - len(told)
    return "; ".join(told) + (f"; and {rest} more" if rest else "")


def _greys(raw: RawMesh) -> str:
    if len(raw.surfaces) == 1:
        return "any face"
    names = list(dict.fromkeys(s.name or "faces without material" for s in raw.surfaces if s.kind == "uniform grey"))
    return f"{', '.join(names[:6])}"
