"""What is said of files and folders that are no mesh: what they are, and which mesh or which export helps."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from .raw import MeshError

_BLENDER = "Blender exports it as GLB"
_FBX = "Blender, or another program that reads FBX, exports it as GLB"
_CAD = "a CAD program or FreeCAD exports it as STL or OBJ"
_POINTS = "it holds points; reconstruct a surface and export it as PLY"
SPLATS = "it holds Gaussian splats, not a surface; export a mesh from the same program, e.g. as OBJ with its texture"
_PACKED = "it is packed; unpack it and name the mesh in it"
_NAMED_USD = "name it .usd"
USD = (".usd", ".usda", ".usdc", ".usdz")
_SUFFIXES = {
    **dict.fromkeys((".fbx",), _FBX),
    **dict.fromkeys((".blend", ".abc", ".3ds", ".wrl", ".vrml", ".x3d", ".lwo"), _BLENDER),
    **dict.fromkeys((".step", ".stp", ".iges", ".igs", ".brep", ".fcstd", ".sldprt", ".sldasm", ".ipt", ".iam"), _CAD),
    **dict.fromkeys((".prt", ".catpart", ".x_t", ".x_b", ".jt", ".f3d", ".3dm", ".ifc", ".scad", ".dwg", ".dxf"), _CAD),
    **dict.fromkeys((".pcd", ".xyz", ".las", ".laz", ".e57", ".pts"), _POINTS),
    **dict.fromkeys((".splat", ".spz", ".ksplat", ".sog"), SPLATS),
    **dict.fromkeys((".tgz", ".gz", ".tar", ".7z", ".rar", ".bz2", ".xz", ".zst"), _PACKED),
    **dict.fromkeys((".vtk", ".vtp", ".vtu"), "ParaView or PyVista exports it as PLY"),
    **dict.fromkeys(
        (".ma", ".mb", ".max", ".c4d", ".skp", ".ztl"), "the program that made it exports it as GLB or OBJ"
    ),
    **dict.fromkeys((".msh", ".inp", ".bdf", ".unv", ".med"), "Gmsh or FreeCAD exports its surface as STL"),
    ".mtl": "it is the material of an OBJ file; name that",
    ".drc": "it is compressed with Draco; decode it to PLY with draco_decoder",
}
_HEADS = (
    (b"Kaydara FBX Binary", "FBX", _FBX),
    (b"BLENDER", "Blender's", _BLENDER),
    (b"PXR-USDC", "USD", _NAMED_USD),
    (b"#usda", "USD", _NAMED_USD),
    (b"ISO-10303-21", "STEP", _CAD),
    (b"#VRML", "VRML", _BLENDER),
    (b"# .PCD", "PCD", _POINTS),
    (b"\x1f\x8b", "gzip", _PACKED),
)
# What describes models, and names their meshes.
_DESCRIPTIONS = (".urdf", ".xacro", ".sdf", ".world", ".srdf", ".mjcf")
_MESHES = (".glb", ".gltf", ".obj", ".ply", ".dae", ".stl", ".off", ".3mf", *USD)
_ROUGH = re.compile(r"collision|convex|nontextured|hull|simpl|(?<![a-z])low(?![a-z])|eval|point", re.I)
_MOST = 5


def of_file(path: Path, head: bytes) -> str:
    """Why a file is not read and what helps, "" where it may be a mesh. head: its first bytes."""
    suffix = path.suffix.lower()
    for magic, name, remedy in _HEADS:
        if head.startswith(magic) and not (remedy == _NAMED_USD and suffix in USD):
            return f"{suffix if suffix in _SUFFIXES else f'it is {name}, which'} is not read; {remedy}"
    if suffix in _DESCRIPTIONS or re.search(rb"<(?:robot|sdf|mujoco)\b", head):
        return _described(path)
    return f"{suffix} is not read; {_SUFFIXES[suffix]}" if suffix in _SUFFIXES else ""


def meshes_in(folder: Path) -> list[Path]:
    """Mesh files below a folder, those for collisions and measurements last."""
    every = [p for p in islice(folder.rglob("*"), 5000) if p.suffix.lower() in _MESHES and p.is_file()]
    return sorted(every, key=lambda p: (_rough(p, folder), _MESHES.index(p.suffix.lower()), str(p)))


def _rough(path: Path, folder: Path) -> bool:
    return _ROUGH.search(str(path.relative_to(folder))) is not None


def only_mesh(folder: Path) -> Path:
    """The mesh in what an archive held. Raises MeshError where there is none, or which is meant is not known."""
    every = meshes_in(folder)
    plain = [p for p in every if not _rough(p, folder)] or every
    if len(plain) == 1:
        return plain[0]
    named = ", ".join(str(p.relative_to(folder)) for p in plain[:_MOST])
    raise MeshError(
        f"it is an archive with {f'{len(plain)} meshes ({named})' if plain else 'no mesh'}; unpack it and name the mesh"
    )


def of_folder(path: Path) -> str:
    """Why a folder is no mesh, and the meshes in it."""
    for name in ("model.sdf", *sorted(p.name for p in path.glob("*.urdf"))):
        if (path / name).is_file():
            return f"is a folder; {name} in it: {_described(path / name)}"
    every = meshes_in(path)
    if not every:
        return f"is a folder without a mesh ({', '.join(_MESHES)})"
    more = f" and {len(every) - _MOST} more" if len(every) > _MOST else ""
    return f"is a folder; name a mesh in it: {', '.join(str(p.relative_to(path)) for p in every[:_MOST])}{more}"


def _described(path: Path) -> str:
    """The meshes that a robot or model description shows, with their scales."""
    text = path.read_bytes()[: 1 << 20].decode("utf-8", "replace")
    shown = re.findall(r"<visual\b.*?</visual>", text, re.S) or [text]
    found: dict[str, None] = {}
    for part in shown:
        for tag, inside in re.findall(r"<mesh\b([^>]*?)(?:/>|>(.*?)</mesh>)", part, re.S):
            name = re.search(r"(?:filename|file)\s*=\s*[\"']([^\"']+)", tag) or re.search(r"<uri>\s*([^<\s]+)", inside)
            scale = re.search(r"scale\s*=\s*[\"']([^\"']+)", tag) or re.search(r"<scale>\s*([^<]+?)\s*</scale>", inside)
            factors = set(scale[1].split()) if scale else set()
            given = (
                f" with --scale {factors.pop()}" if len(factors) == 1 else f" (scaled by {scale[1]})" if scale else ""
            )
            if name:
                found[name[1] + ("" if given == " with --scale 1" else given)] = None
    if not found:
        return "it describes a model and names no mesh; export its shape as GLB, OBJ, PLY or STL"
    return (
        f"it describes a model, and poses are of a mesh; name the one that it shows: {', '.join(list(found)[:_MOST])}"
    )
