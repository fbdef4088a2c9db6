"""Images that meshes name: where they are looked for, and how they are read."""

from __future__ import annotations

import io
import re
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MAX_TEXTURE = 1024
"""Larger sides are reduced: a network sees 160 pixels of an object."""
_NEIGHBOURS = ("textures", "texture", "images", "materials", "maps", "materials/textures")
_NOT_READ = {b"\xabKTX": "KTX2 (Basis)", b"sRS\xa0": "JPEG XR", b"v/1\x01": "OpenEXR", b"#?RA": "Radiance HDR"}


class ImageError(ValueError):
    """An image that is not there or cannot be read; the message says why."""


def find(reference: str, folder: Path) -> Path:
    """The file that ``reference``, written in a file of ``folder``, means. Raises ImageError that says where it was sought.

    Taken as it is first; then with backslashes as separators, quotes removed, percent codes decoded, other case, and, for
    paths of another machine, by the last parts of the path, beside the file and in the usual folders near it.
    """
    if reference.strip().lower().startswith(("http://", "https://")):
        raise ImageError(f"{reference!r} is on the network, from where nothing is loaded; save it beside the mesh")
    name = re.sub(r"^file:(//)?", "", reference.strip().strip("\"'").strip(), flags=re.IGNORECASE)
    for text in dict.fromkeys([reference, name, name.replace("\\", "/"), urllib.parse.unquote(name)]):
        path = folder / text
        if text and _is_file(path):
            return path
    places = [folder, *(folder / n for n in _NEIGHBOURS), *(folder.parent / n for n in _NEIGHBOURS), folder.parent]
    for written in dict.fromkeys([name, name.partition(" #")[0].rstrip()]):  # a comment, unless it is in the name
        every = PureWindowsPath(urllib.parse.unquote(written)).parts
        parts = [p for p in every if p not in ("\\", "/", ".", "..") and ":" not in p]
        for place in places:
            for start in range(len(parts)):
                found = _any_case(place, parts[start:])
                if found is not None:
                    return found
    near = ", ".join(dict.fromkeys(str(p) for p in places if _is_folder(p)))
    raise ImageError(f"{reference!r} was not found (looked in {near})")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _any_case(folder: Path, parts: list[str]) -> Path | None:
    """The file at ``parts`` below ``folder``, of which each may be written in other case."""
    for i, part in enumerate(parts):
        if not _is_folder(folder):
            return None
        exact = folder / part
        if not (_is_file(exact) or _is_folder(exact)):
            same = [p for p in _entries(folder) if p.name.casefold() == part.casefold()]
            if not same:
                return None
            exact = same[0]
        if i == len(parts) - 1:
            return exact if _is_file(exact) else None
        folder = exact
    return None


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def read(source: Path | bytes) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 sRGB of an image file or its bytes, sides at most MAX_TEXTURE. Raises ImageError."""
    data: io.BytesIO | Path = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        head = source[:4] if isinstance(source, bytes) else _head(source)
        if head in _NOT_READ:
            raise ImageError(f"it is {_NOT_READ[head]}, which is not read; convert it to PNG or JPEG")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large scans' size
            with Image.open(data) as image:
                image.draft("RGB", (MAX_TEXTURE, MAX_TEXTURE))  # large JPEGs are decoded at a fraction of their size
                return from_image(image)
    except UnidentifiedImageError:
        raise ImageError("it is no image of a known format; convert it to PNG or JPEG") from None
    except ImageError:
        raise
    except Exception as error:  # PIL raises whatever its decoders do
        raise ImageError(f"it cannot be decoded ({type(error).__name__}: {error})") from error


def opacity(data: bytes, size: tuple[int, ...]) -> NDArray[np.float32] | None:
    """(h, w) in [0, 1] of an image that ``read`` reads, at the ``size`` that it gave; None where it is opaque."""
    with Image.open(io.BytesIO(data)) as image:
        if "A" not in image.getbands() and "transparency" not in image.info:
            return None
        alpha = image.convert("RGBA").getchannel("A").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(alpha, np.float32) / np.float32(255)


def is_8_bit_color(source: Path | bytes) -> bool:
    """Whether an image that ``read`` reads has colours of 8 bits, not grey or more bits."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        deep = any("16" in str(tile[3]) for tile in image.tile)  # Pillow gives 8 of them
        return (len(image.getbands()) >= 3 and not deep) or image.mode == "P"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def from_image(image: Image.Image) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 of a PIL image; transparency is left out, as renderers of opaque things do."""
    if max(image.size) > 2 * MAX_TEXTURE and image.mode in ("L", "RGB", "RGBA", "CMYK"):
        image = image.reduce(max(image.size) // (2 * MAX_TEXTURE) + 1)
    if image.mode.startswith(("I", "F")):  # PIL clips these to 255 instead of scaling them
        values = np.asarray(image).astype(np.float64)
        top = 1.0 if image.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        image = Image.fromarray((values * (255 / top)).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        image.putalpha(255)  # so that resizing does not weigh by it
    image = image.convert("RGB")
    if max(image.size) > MAX_TEXTURE:
        image.thumbnail((MAX_TEXTURE, MAX_TEXTURE), Image.Resampling.LANCZOS)
    return np.asarray(image)
