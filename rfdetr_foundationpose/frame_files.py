"""Colour and depth images from files, for ``Frame.from_files``."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

NO_DEPTH = 65_504.0
"""Floating-point depth from here on means that nothing is there: renderers write 1e10, or the largest number of 16 bits."""

_HIGHEST = 65_535
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MILLIMETRES = 50.0
"""Floating-point depth whose median is above this is in millimetres: no camera of colour and depth sees so many metres."""


def measured(depth: NDArray[Any]) -> NDArray[Any]:
    """(N,) those of depth values of any unit and shape that are a distance: finite, positive, and less than NO_DEPTH."""
    return np.asarray(depth[np.isfinite(depth) & (depth > 0) & (depth < NO_DEPTH)])


def read_color(path: str | Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, as the pixels are stored. Raises InputError that names the file."""
    # A camera's orientation tag would turn the colour image away from its depth.
    image = _decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_depth(path: str | Path) -> NDArray[Any]:
    """(H, W) uint16 or float32 as stored: a 16-bit PNG, a 16-bit or float TIFF, a .npy or .npz array, or OpenEXR. Integers of more
    bits become uint16 where their values fit, negative ones 0.

    Raises InputError that names the file, also for an image of 8 bits: depth scaled for looking at is no depth.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".exr":
        image = _load_exr(path)
    else:
        image = _load_numpy(path) if suffix in (".npy", ".npz") else _decode(path, cv2.IMREAD_UNCHANGED)
    holds = f"depth file {path} holds {image.dtype} {image.shape}"
    if image.ndim == 3 and 1 in (image.shape[0], image.shape[2]):
        image = image[0] if image.shape[0] == 1 else image[..., 0]
    if image.ndim == 3 and image.dtype.itemsize > 1 and (image[..., :3] == image[..., :1]).all():
        image = image[..., 0]  # the same three times, as Blender and libraries of colour images write it
    if image.ndim == 2 and image.dtype.kind == "f":
        return image.astype(np.float32)
    if image.ndim == 2 and image.dtype.kind in "iu" and image.dtype.itemsize > 1:
        highest = int(image.max(initial=0))
        if highest <= _HIGHEST:
            return image.clip(0, _HIGHEST).astype(np.uint16)
        raise InputError(
            "bad_depth", f"{holds} up to {highest}, more than uint16 holds; store floating point, in metres, instead"
        )
    raise InputError(
        "bad_depth",
        f"{holds}, expected one channel of uint16 (times depth_scale, 0.001 for millimetres) or of floating point (metres)",
    )


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file as the pixels are stored. Raises InputError that names it."""
    height, width = _decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).shape[:2]
    return int(width), int(height)


def _decode(path: Path, flags: int) -> NDArray[Any]:
    data = _bytes(path)
    level = cv2.utils.logging.getLogLevel()
    try:
        # What OpenCV prints of a TIFF fills a screen, and is said below.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None and data[:4] in _TIFF:
        raise InputError(
            "bad_image",
            f"TIFF file {path} cannot be decoded: it is damaged, or packed otherwise than by deflate or LZW, or of 16-bit floats; store "
            "integers of 16 bits or floats of 32",
        )
    if image is None:
        raise InputError("bad_image", f"image file {path} cannot be decoded; expected a PNG, JPEG or TIFF image")
    return np.asarray(image)


def _load_numpy(path: Path) -> NDArray[Any]:
    """Of a .npy, or a .npz with one array or one that is named depth."""
    try:
        found: Any = np.load(io.BytesIO(_bytes(path)), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        names = [n for n in found.files if "depth" in n.lower()] or found.files
        if len(names) != 1:
            raise InputError(
                "bad_depth", f"depth file {path} has the arrays {', '.join(found.files) or 'none'}; depth needs one"
            )
        return np.asarray(found[names[0]])
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError("bad_depth", f"depth file {path} is no {path.suffix} array: {error}") from error


def _load_exr(path: Path) -> NDArray[Any]:
    """The channel that holds depth; OpenCV 5's wheels read no EXR (findings/opencv-5-wheels-have-no-openexr.sh)."""
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError("bad_depth", f"depth file {path} needs OpenEXR: pip install OpenEXR") from error
    path = path.expanduser()
    _bytes(path)  # says why a file cannot be opened
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            found = {name: np.asarray(c.pixels) for part in file.parts for name, c in part.channels.items()}
    except Exception as error:  # whatever a damaged file makes of it
        raise InputError("bad_depth", f"depth file {path} is no OpenEXR image: {error}") from error
    of_depth = [n for n in found if "depth" in n.lower()]  # "ViewLayer.Depth.Z", where "ViewLayer.Normal.Z" is none
    named = of_depth or [n for n in found if n.rpartition(".")[2] in ("Z", "V", "Y")] or list(found)
    if len({found[n].tobytes() for n in named}) != 1:
        raise InputError(
            "bad_depth", f"depth file {path} has the channels {', '.join(found)}; depth needs one, Z, V or Y"
        )
    return found[named[0]]


def _bytes(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InputError("bad_image", f"image file {path} cannot be read: {error.strerror}") from error
