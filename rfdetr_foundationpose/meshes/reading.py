"""Which reader a file takes, and what is said of files that none can read."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from ..stand_ins import HEAD, stand_in
from . import dae, gltf, obj, off, others, ply, scene, stl, three_mf, usd
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
    **dict.fromkeys(others.USD, usd.read),
}


_LARGEST = 2_000_000_000
"""Archives are unpacked up to so many bytes."""


def read(path: Path) -> RawMesh:
    """The mesh of ``path``. Raises MeshError with a reason that follows "mesh PATH cannot be read: "."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if reason := stand_in(head):
        raise MeshError(reason)
    suffix = path.suffix.lower()
    if head[:4] == b"glTF":
        suffix = ".glb"
    elif head[:4] in (b"ply\n", b"ply\r"):
        suffix = ".ply"
    if reason := others.of_file(path, head):
        raise MeshError(reason)
    if head[:4] == b"PK\x03\x04" and suffix not in (".3mf", ".usdz"):
        return _read_archive(path)
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


def _read_archive(path: Path) -> RawMesh:
    """The only mesh of a zip archive, with the materials and images that lie beside it there. Raises MeshError."""
    with tempfile.TemporaryDirectory(prefix="mesh_") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > _LARGEST:
                    raise MeshError(f"it is an archive of {size / 1e9:.1f} GB; unpack it and name the mesh in it")
                archive.extractall(folder)
        except MeshError:
            raise
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
            raise MeshError(f"it is an archive that cannot be unpacked ({error}); copy it again") from error
        return read(others.only_mesh(Path(folder)))
