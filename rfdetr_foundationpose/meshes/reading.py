"""Which reader a file takes, and what is said of files that none can read."""

from __future__ import annotations

from pathlib import Path

from . import dae, gltf, obj, off, ply, scene, stl, three_mf
from .raw import MeshError, RawMesh

_READERS = {
    ".obj": obj.read,
    ".ply": ply.read,
    ".stl": stl.read,
    ".glb": gltf.read,
    ".gltf": gltf.read,
    ".dae": dae.read,
    ".off": off.read,
    ".3mf": three_mf.read,
}
_OTHERS = {
    ".fbx": "Blender, or another program that reads FBX, exports it as GLB",
    ".blend": "Blender exports it as GLB",
    ".usd": "Blender exports it as GLB",
    ".usda": "Blender exports it as GLB",
    ".usdc": "Blender exports it as GLB",
    ".usdz": "Blender exports it as GLB",
    ".step": "a CAD program or FreeCAD exports it as STL or OBJ",
    ".stp": "a CAD program or FreeCAD exports it as STL or OBJ",
    ".iges": "a CAD program or FreeCAD exports it as STL or OBJ",
    ".pcd": "it holds points; reconstruct a surface and export it as PLY",
    ".xyz": "it holds points; reconstruct a surface and export it as PLY",
}


def read(path: Path) -> RawMesh:
    """The mesh of ``path``. Raises MeshError with a reason that follows "mesh PATH cannot be read: "."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise MeshError("it is empty; was it copied in full?")
    if head.startswith(b"version https://git-lfs"):
        raise MeshError("it is a Git LFS pointer, not the mesh itself; run 'git lfs pull' where it came from")
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise MeshError("it is a web page, not a mesh; download the file itself")
    suffix = path.suffix.lower()
    if head[:4] == b"glTF":
        suffix = ".glb"
    elif head[:4] in (b"ply\n", b"ply\r"):
        suffix = ".ply"
    if suffix in _OTHERS:
        raise MeshError(f"{suffix} is not read; {_OTHERS[suffix]}")
    try:
        return _READERS.get(suffix, scene.read)(path)
    except MeshError:
        raise
    except MemoryError:
        raise MeshError("it claims more data than fits into memory; is it damaged?") from None
    except Exception as error:  # whatever a damaged file makes of the code that trusted it
        words = " ".join(str(error).split())[:160]
        raise MeshError(
            f"it is damaged, or not what its suffix {suffix!r} says ({type(error).__name__}: {words})"
        ) from error
