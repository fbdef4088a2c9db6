"""USD: what the stage shows at its first time, in its unit and axes. Parsed by usd-core, Pixar's own library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .raw import MeshError, RawMesh, joined
from .usd_material import Materials
from .usd_part import Part

_NOT_OPENED = re.compile(r"Could not open asset @([^@]*)@")
_MOST = 4


def read(path: Path) -> RawMesh:
    """All meshes and simple shapes that are shown, of the default prim where there is one. Raises MeshError."""
    try:
        from pxr import Tf, Usd, UsdGeom
    except ImportError as error:
        raise MeshError("USD needs usd-core: pip install usd-core; or Blender exports it as GLB") from error
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        said = str(error).strip().partition("\n")[0].rpartition(" : ")[2].strip("' ").removeprefix(str(path))
        raise MeshError(f"it is damaged, or no USD ({said.lstrip(':')[:160]})") from error
    time = Usd.TimeCode.EarliestTime()
    notes = _missing([str(error) for error in stage.GetCompositionErrors()])
    materials = Materials(path, time, notes)
    places = UsdGeom.XformCache(time)
    parts = []
    for prim in _shown(stage, time, notes):
        part = _of_mesh(prim, time, notes) if prim.IsA(UsdGeom.Mesh) else _of_shape(prim, time, notes)
        if part is not None:
            materials.paint(prim, part)
            parts.append(_placed(part.mesh, np.array(places.GetLocalToWorldTransform(prim), np.float64)))
    if not parts:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise MeshError(f"its stage shows no mesh{said}; export it with its meshes, not as references to other files")
    mesh = joined(parts)
    mesh.notes += dict.fromkeys(notes)
    if UsdGeom.StageHasAuthoredMetersPerUnit(stage):
        mesh.unit = float(UsdGeom.GetStageMetersPerUnit(stage))
    return mesh


def _missing(errors: list[str]) -> list[str]:
    """What a stage refers to and does not get."""
    names = [PurePosixPath(found[1]).name for error in errors if (found := _NOT_OPENED.search(error))]
    materials = list(dict.fromkeys(n for n in names if n.lower().endswith(".mtlx")))
    others = list(dict.fromkeys(n for n in names if n not in materials))
    said = [" ".join(error.split())[:200] for error in errors if not _NOT_OPENED.search(error)][:3]
    if others:
        said.append(f"it refers to {', '.join(others[:_MOST])}, which is not there; copy it too")
    if materials:
        said.append(
            f"its materials are in MaterialX ({', '.join(materials[:_MOST])}), which usd-core's wheels do not read; export UsdPreviewSurface"
        )
    return said


def _shown(stage: Any, time: Any, notes: list[str]) -> Iterator[Any]:
    """Prims with a surface, instances too; not what is hidden, guides, stands in, or is there to be scattered."""
    from pxr import Usd, UsdGeom, UsdSkel

    top = stage.GetDefaultPrim()
    for root in (top, stage.GetPseudoRoot()) if top else (stage.GetPseudoRoot(),):
        found = False
        prims = iter(Usd.PrimRange(root, Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)))
        for prim in prims:
            if prim.IsA(UsdGeom.PointInstancer):
                notes.append(f"what {prim.GetPath()} scatters is left out")
                prims.PruneChildren()
            if not prim.IsA(UsdGeom.Gprim):
                continue
            image = UsdGeom.Imageable(prim)
            if image.ComputeVisibility(time) == "invisible" or image.ComputePurpose() in ("guide", "proxy"):
                continue
            if UsdSkel.BindingAPI(prim).GetJointIndicesAttr().HasValue():
                notes.append("it is moved by joints, and is shown in the shape that these start from")
            found = True
            yield prim
        if found:
            return


def _of_mesh(prim: Any, time: Any, notes: list[str]) -> Part | None:
    from pxr import UsdGeom

    mesh = UsdGeom.Mesh(prim)
    points, counts, corners = (
        np.atleast_1d(np.asarray(a.Get(time) if a.HasValue() else []))
        for a in (mesh.GetPointsAttr(), mesh.GetFaceVertexCountsAttr(), mesh.GetFaceVertexIndicesAttr())
    )
    if not len(points) or not len(counts):
        return None
    if points.shape[1:] != (3,) or counts.ndim != 1 or corners.ndim != 1:
        notes.append(f"{prim.GetPath()} has points or faces of another type than USD's meshes have, and is left out")
        return None
    part = Part(points.astype(np.float64), counts.astype(np.int64), corners.astype(np.int64))
    holes = mesh.GetHoleIndicesAttr().Get(time)
    if holes:
        part.without(np.asarray(holes))
    subdivided = mesh.GetSubdivisionSchemeAttr().Get(time) != "none"
    if subdivided and mesh.GetSubdivisionSchemeAttr().HasAuthoredValue():
        notes.append("it is subdivided when it is rendered, and is taken as it is before")
    if not subdivided:
        _take_normals(mesh, part, time)
    if mesh.GetOrientationAttr().Get(time) == "leftHanded":
        part.mesh.turn_faces(np.ones(len(part.mesh.faces), bool))
        part.triangles = part.triangles[:, ::-1]
    return part if len(part.mesh.faces) else None


def _take_normals(mesh: Any, part: Part, time: Any) -> None:
    from pxr import UsdGeom

    given = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("normals")
    if given and given.HasValue():
        values, interpolation = given.ComputeFlattened(time), given.GetInterpolation()
    else:
        values, interpolation = mesh.GetNormalsAttr().Get(time), mesh.GetNormalsInterpolation()
    if not values:
        return
    index = part.index(interpolation, len(values))
    if index is not None:
        part.mesh.normals, part.mesh.normal_index = np.asarray(values, np.float32), index


def _of_shape(prim: Any, time: Any, notes: list[str]) -> Part | None:
    """Of a cube, sphere, cylinder, capsule or cone; None and a note of curves, points and patches."""
    import trimesh
    from pxr import UsdGeom

    def value(name: str) -> float:
        return float(prim.GetAttribute(name).Get(time))

    if prim.IsA(UsdGeom.Cube):
        made = trimesh.creation.box(extents=[value("size")] * 3)
    elif prim.IsA(UsdGeom.Sphere):
        made = trimesh.creation.uv_sphere(radius=value("radius"))
    elif prim.IsA(UsdGeom.Cylinder):
        made = trimesh.creation.cylinder(radius=value("radius"), height=value("height"))
    elif prim.IsA(UsdGeom.Capsule):
        made = trimesh.creation.capsule(radius=value("radius"), height=value("height"))
        made.apply_translation([0, 0, -float(made.bounds.mean(0)[2])])
    elif prim.IsA(UsdGeom.Cone):
        made = trimesh.creation.cone(radius=value("radius"), height=value("height"))
        made.apply_translation([0, 0, -value("height") / 2])
    else:
        notes.append(f"{prim.GetPath()} is left out, because {prim.GetTypeName()} is not read; export it as a mesh")
        return None
    vertices = np.asarray(made.vertices, np.float64)
    axis = prim.GetAttribute("axis").Get(time) if prim.HasAttribute("axis") else "Z"
    vertices = vertices[:, {"Z": [0, 1, 2], "X": [2, 0, 1], "Y": [1, 2, 0]}[str(axis)]]
    faces = np.asarray(made.faces, np.int64)
    return Part(vertices, np.full(len(faces), 3), faces.reshape(-1))


def _placed(mesh: RawMesh, matrix: NDArray[np.float64]) -> RawMesh:
    """matrix: (4, 4), for rows."""
    mesh.vertices = mesh.vertices @ matrix[:3, :3] + matrix[3, :3]
    if mesh.normals is not None:
        try:
            mesh.normals = (mesh.normals @ np.linalg.inv(matrix[:3, :3]).T).astype(np.float32)
        except np.linalg.LinAlgError:
            mesh.normals = None
    if np.linalg.det(matrix[:3, :3]) < 0:
        mesh.turn_faces(np.ones(len(mesh.faces), bool))
    return mesh
