"""glTF materials: what a base colour is, through the extensions that say it otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .gltf_file import GltfFile, Json
from .raw import MeshError, Surface, Texture, grey_surface
from .srgb import decode_srgb, linear_as_text

_WRAP = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
_SOURCES = ("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds")


@dataclass(frozen=True)
class Base:
    """The base colour of a material. coordinates: which TEXCOORD set; matrix: (2, 3) float64, applied to it."""

    name: str
    factor: tuple[float, float, float]
    texture: Texture | None
    source: str
    missing: bool
    coordinates: int
    matrix: NDArray[np.float64]

    def surface(self, colored: bool) -> Surface:
        """With or without colours of the vertices."""
        if self.texture is not None:
            source = f"{self.source} x vertex colours" if colored else self.source
            return Surface(self.name, "texture", source, self.factor, True, colored, self.texture)
        if colored:
            source = "vertex colours" + ("" if self.factor == (1, 1, 1) else f" x {self.source}")
            return Surface(self.name, "vertex colours", source, self.factor, True, True)
        if self.missing:
            return grey_surface(self.name, self.source)
        return Surface(self.name, "uniform colour", self.source, self.factor, True)


class Materials:
    """The materials of a file, each resolved once. notes: what to tell of them."""

    def __init__(self, file: GltfFile) -> None:
        self.file = file
        self.notes: list[str] = []
        self._bases: dict[int | None, Base] = {}
        self._pixels: dict[int, NDArray[np.uint8]] = {}

    def base(self, index: Any) -> Base:
        """Of material ``index``, or of a primitive without one (None)."""
        if index not in self._bases:
            self._bases[index] = self._resolve(index)
        return self._bases[index]

    def surface(self, base: Base, colored: bool) -> Surface:
        """What has that base colour, with or without colours of the vertices."""
        # VTK shows them in the place of the colour that it writes beside them.
        if colored and _by(self.file) == "VTK":
            base = replace(base, factor=(1, 1, 1))
        return base.surface(colored)

    def _resolve(self, index: Any) -> Base:
        plain = np.array([[1.0, 0, 0], [0, 1, 0]])
        if index is None:
            return Base("", (1, 1, 1), None, "no material, no colours", True, 0, plain)
        material = self.file.item("materials", index)
        name = str(material.get("name") or f"material {index}")
        factor, info, glow = _base_color(material)
        if _by(self.file) == "VTK":  # it writes the numbers that it shows, where linear ones belong
            red, green, blue = decode_srgb(np.array(factor)).tolist()
            factor = (red, green, blue)
        texture, source, missing = None, f"base colour {linear_as_text(factor)}", False
        coordinates, matrix = 0, plain
        if info is not None:
            coordinates, matrix = _placement(info)
            try:
                texture, image = self._texture(info.get("index"))
                if factor == (0.4, 0.4, 0.4) and "mikedh/trimesh" in _by(self.file):
                    factor = (1, 1, 1)  # the default grey of its materials, which it writes beside any image
                height, width = texture.pixels.shape[:2]
                source = f"{'emissive ' if glow else ''}texture {image} ({width} x {height})"
                if factor != (1, 1, 1):
                    source += f" x {linear_as_text(factor)}"
            except images.ImageError as error:
                self.notes.append(
                    f"the texture of material {name!r} {error}; that part is rendered without it and may turn about an "
                    "axis unseen"
                )
                missing = factor == (1, 1, 1)
                source = "its image is missing" if missing else source
        return Base(name, factor, texture, source, missing, coordinates, matrix)

    def _texture(self, index: Any) -> tuple[Texture, str]:
        entry = self.file.item("textures", index)
        extensions = entry.get("extensions") or {}
        sources = [(extensions.get(e) or {}).get("source") for e in _SOURCES] + [entry.get("source")]
        candidates = [s for s in sources if isinstance(s, int)]
        if not candidates:
            if "KHR_texture_basisu" in extensions:
                raise images.ImageError("is Basis/KTX2 (KHR_texture_basisu), which is not read; export PNG or JPEG")
            raise images.ImageError("was not found (its texture names no image)")
        problem = images.ImageError("was not found")
        for source in candidates:
            try:
                if source not in self._pixels:
                    self._pixels[source] = self.file.image(source)
                sampler: Json = self.file.item("samplers", entry["sampler"]) if "sampler" in entry else {}
                wrap = (_WRAP.get(sampler.get("wrapS", 10497)), _WRAP.get(sampler.get("wrapT", 10497)))
                pixels = self._pixels[source]
                return Texture(pixels, (wrap[0] or "repeat", wrap[1] or "repeat")), self.file.image_name(source)
            except images.ImageError as error:
                problem = error
            except MeshError as error:
                problem = images.ImageError(f"cannot be read: {error}")
        raise problem


def _by(file: GltfFile) -> str:
    """What wrote the file."""
    return str((file.json.get("asset") or {}).get("generator", ""))


def _base_color(material: Json) -> tuple[tuple[float, float, float], Json | None, bool]:
    """Linear factor, texture reference, and whether they are of the emission: of a material that shows nothing else."""
    extensions = material.get("extensions") or {}
    glossy = extensions.get("KHR_materials_pbrSpecularGlossiness")
    metallic = material.get("pbrMetallicRoughness") or {}
    if isinstance(glossy, dict):
        factor, info = _rgb(glossy.get("diffuseFactor")), glossy.get("diffuseTexture")
        if info is None and "diffuseFactor" not in glossy:
            factor, info = _rgb(metallic.get("baseColorFactor")), metallic.get("baseColorTexture")
    else:
        factor, info = _rgb(metallic.get("baseColorFactor")), metallic.get("baseColorTexture")
    emission = material.get("emissiveTexture")
    if isinstance(emission, dict) and max(factor) == 0:  # photographs of scans are often stored so
        return _rgb(material.get("emissiveFactor"), 0.0), emission, True
    return factor, info if isinstance(info, dict) else None, False


def _rgb(values: Any, default: float = 1.0) -> tuple[float, float, float]:
    if values is None:
        return (default, default, default)
    try:
        red, green, blue = (min(max(float(v), 0.0), 1.0) for v in values[:3])
    except (TypeError, ValueError):
        raise MeshError(f"a material has the colour {values!r}, expected three or four numbers from 0 to 1") from None
    return (red, green, blue)


def _placement(info: Json) -> tuple[int, NDArray[np.float64]]:
    """Coordinates set and (2, 3) matrix of a texture reference (KHR_texture_transform)."""
    moved = (info.get("extensions") or {}).get("KHR_texture_transform") or {}
    coordinates = moved.get("texCoord", info.get("texCoord", 0))
    try:
        (x, y), (sx, sy) = moved.get("offset", (0, 0)), moved.get("scale", (1, 1))
        c, s = np.cos(float(moved.get("rotation", 0))), np.sin(float(moved.get("rotation", 0)))
        return int(coordinates or 0), np.array([[c * sx, s * sy, x], [-s * sx, c * sy, y]], np.float64)
    except (TypeError, ValueError):
        raise MeshError(f"a texture has the transform {moved!r}, which is not understood") from None
