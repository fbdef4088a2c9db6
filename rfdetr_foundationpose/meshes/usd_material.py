"""Colours of USD: what a bound material shows as its base, else displayColor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import images
from .normals import split
from .raw import RawMesh, Surface, Texture, grey_surface
from .srgb import decode_srgb, encode_srgb, linear_as_text
from .usd_part import Part

_WRAP = {"mirror": "mirror", "clamp": "clamp", "black": "clamp"}
# Inputs of shaders that hold the base colour: UsdPreviewSurface, MaterialX's and Autodesk's standard surface, glTF's; Omniverse's.
_COLORS = ("diffuseColor", "base_color", "baseColor", "diffuse_color_constant", "diffuse_color")
_FILES = ("diffuse_texture", "base_color_texture", "albedo_texture")
_TINT = "diffuse_tint"


class Base(NamedTuple):
    """The base colour of a material. factor: linear. uv: primvar of the coordinates; matrix: (2, 3), applied to them. colors: primvar
    that is the colour, "" without."""

    name: str
    source: str
    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: Texture | None = None
    uv: str = "st"
    matrix: NDArray[np.float64] = np.array([[1.0, 0, 0], [0, 1, 0]])
    colors: str = ""
    missing: bool = False


class Materials:
    """The materials of a stage, each resolved once. notes: what to tell of them."""

    def __init__(self, path: Path, time: Any, notes: list[str]) -> None:
        self._folder, self._time, self._notes = path.parent, time, notes
        self._bases: dict[str, Base] = {}
        self._pixels: dict[str, tuple[NDArray[np.uint8], bool]] = {}

    def paint(self, prim: Any, part: Part) -> None:
        """Surfaces, coordinates and colours of a part, by the materials that are bound to its prim and to its subsets."""
        from pxr import UsdShade

        mesh = part.mesh
        rest = np.ones(len(mesh.faces), bool)
        bound = [(prim, rest)]
        for subset in UsdShade.MaterialBindingAPI(prim).GetMaterialBindSubsets():
            inside = np.isin(part.polygon, np.asarray(subset.GetIndicesAttr().Get(self._time)))
            bound.append((subset.GetPrim(), inside))
            rest &= ~inside
        mesh.surface = np.zeros(len(mesh.faces), np.int32)
        uv = np.zeros((len(mesh.faces), 3, 2), np.float32)
        colors = np.ones((len(mesh.faces), 3, 3), np.float32)
        for target, faces in bound:
            if not faces.any():
                continue
            material, _ = UsdShade.MaterialBindingAPI(target).ComputeBoundMaterial()
            base = self._base(material) if material else None
            name = "displayColor" if base is None else base.colors
            shown = self._values(prim, part, name, 3) if name else None
            placed = None if base is None or base.texture is None else self._values(prim, part, base.uv, 2)
            if base is not None and base.texture is not None and placed is None:
                self._notes.append(
                    f"material {base.name!r} asks for the coordinates {base.uv!r}, which its mesh does not have"
                )
                base = base._replace(texture=None, source="no texture coordinates", missing=True)
            if shown is None and (base is None or base.texture is None):
                self._mention_colors(prim, base)
            mesh.surface[faces] = len(mesh.surfaces)
            mesh.surfaces.append(_surface(base, shown is not None))
            if shown is not None:
                colors[faces] = shown[faces].clip(0, 1)
            if placed is not None and base is not None:
                uv[faces] = (placed @ base.matrix[:, :2].T + base.matrix[:, 2])[faces]
        corners = np.arange(3 * len(mesh.faces), dtype=np.int32).reshape(-1, 3)
        if any(s.texture is not None for s in mesh.surfaces):
            mesh.uv, mesh.uv_index = uv.reshape(-1, 2), corners
        if any(s.colored for s in mesh.surfaces):
            _color(mesh, colors)

    def _mention_colors(self, prim: Any, base: Base | None) -> None:
        """Colours that a mesh has and nothing shows, as Blender leaves them."""
        from pxr import UsdGeom

        given = UsdGeom.PrimvarsAPI(prim).GetPrimvarsWithValues()
        names = [p.GetPrimvarName() for p in given if "color" in str(p.GetTypeName()) and len({*p.Get(self._time)}) > 1]
        if names:
            by = "no material shows" if base is None else f"its material {base.name!r} does not show"
            self._notes.append(
                f"{prim.GetName()} has colours ({', '.join(names)}) that {by}; connect them there, or export GLB"
            )

    def _values(self, prim: Any, part: Part, name: str, width: int) -> NDArray[np.float32] | None:
        """(F, 3, width) of a primvar, also one that a prim above has; None where it is not there."""
        from pxr import UsdGeom

        found = UsdGeom.PrimvarsAPI(prim).FindPrimvarWithInheritance(name)
        values = found.ComputeFlattened(self._time) if found and found.HasValue() else None
        if values is None or not len(values):
            return None
        table = np.asarray(values, np.float32)
        index = part.index(found.GetInterpolation(), len(table))
        return None if index is None or table.ndim != 2 or table.shape[1] < width else table[index][..., :width]

    def _base(self, material: Any) -> Base:
        key = str(material.GetPath())
        if key not in self._bases:
            self._bases[key] = self._resolve(material)
        return self._bases[key]

    def _resolve(self, material: Any) -> Base:
        name = str(material.GetPrim().GetName())
        shader = next((s for c in ("", "mdl", "mtlx") if (s := material.ComputeSurfaceSource(c)[0])), None)
        if shader is None:
            return Base(name, "its material has no shader that is read", missing=True)
        files: list[Any] = [_constant(shader, key) for key in _FILES]
        named = [f for f in files if getattr(f, "path", "")]
        if named:
            return self._textured(Base(name, "", _rgb(_constant(shader, _TINT))), named[0])
        given = next((i for key in _COLORS if (i := shader.GetInput(key))), None)
        if given is None:
            factor = (0.18, 0.18, 0.18) if _identifier(shader) == "UsdPreviewSurface" else None  # what it shows without
            return Base(name, "its shader names no colour", factor or (1, 1, 1), missing=factor is None)
        return self._followed(name, given)

    def _followed(self, name: str, given: Any) -> Base:
        """What an input is connected to, through interfaces and node graphs, or its value."""
        from pxr import UsdShade

        for attribute in UsdShade.Utils.GetValueProducingAttributes(given):
            node = UsdShade.Shader(attribute.GetPrim())
            if UsdShade.Input.IsInput(attribute):
                factor = _rgb(attribute.Get(self._time))
                return Base(name, f"base colour {linear_as_text(factor)}", factor)
            kind = _identifier(node)
            if kind.startswith("UsdPrimvarReader"):
                return Base(name, "", colors=str(_constant(node, "varname") or "displayColor"))
            file = _constant(node, "file")
            if getattr(file, "path", ""):
                uv, matrix = _coordinates(node)
                return self._textured(Base(name, "", uv=uv, matrix=matrix), file, node)
            return Base(
                name, f"its colour comes from a node {kind or 'without a name'}, which is not read", missing=True
            )
        return Base(name, "its shader names no colour", missing=True)

    def _textured(self, base: Base, file: Any, node: Any = None) -> Base:
        try:
            pixels, displayed = self._image(file)
        except images.ImageError as error:
            self._notes.append(
                f"the texture of material {base.name!r} {error}; that part is rendered without it and may turn about an axis unseen"
            )
            instead = None if node is None else _constant(node, "fallback")
            if instead is None:
                return base._replace(source="its image is missing", missing=True)
            factor = _rgb(instead)
            return base._replace(source=f"fallback {linear_as_text(factor)}, its image is missing", factor=factor)
        if node is not None:
            pixels, factor = _shown(node, pixels, displayed)
            base = base._replace(factor=factor)
        # UsdUVTexture shows the same place of the image everywhere then; MaterialX's nodes take the mesh's first coordinates.
        if node is not None and _identifier(node) == "UsdUVTexture" and _source(node, "st") is None:
            texel = pixels[-1 - int(_at(node, 1) * (pixels.shape[0] - 1)), int(_at(node, 0) * (pixels.shape[1] - 1))]
            light = decode_srgb(texel / 255) * np.array(base.factor)
            factor = (float(light[0]), float(light[1]), float(light[2]))
            return base._replace(factor=factor, source=f"{linear_as_text(factor)} of {Path(str(file.path)).name}")
        wrap = [_WRAP.get(str(_constant(node, key)), "repeat") if node else "repeat" for key in ("wrapS", "wrapT")]
        height, width = pixels.shape[:2]
        source = f"texture {Path(str(file.path)).name} ({width} x {height})"
        if base.factor != (1, 1, 1):
            source += f" x {linear_as_text(base.factor)}"
        return base._replace(source=source, texture=Texture(pixels, (wrap[0], wrap[1])))

    def _image(self, file: Any) -> tuple[NDArray[np.uint8], bool]:
        """Pixels, and whether USD takes them for displayed colours unless told otherwise. Raises ImageError. file: Sdf.AssetPath, of a
        file or of what a usdz archive holds."""
        from pxr import Ar

        where = str(file.resolvedPath)
        if where not in self._pixels or not where:
            asset = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(where)) if where else None
            found: bytes | Path
            if asset is None:
                if "<UDIM>" in str(file.path):
                    raise images.ImageError(
                        f"{file.path!r} is a set of tiles (UDIM), which is not read; export it as OBJ"
                    )
                found = images.find(str(file.path), self._folder)
                where = str(found)
            else:
                found = bytes(asset.GetBuffer())
            self._pixels[where] = images.read(found), images.is_8_bit_color(found)
        return self._pixels[where]


def _shown(
    node: Any, pixels: NDArray[np.uint8], displayed: bool
) -> tuple[NDArray[np.uint8], tuple[float, float, float]]:
    """sRGB pixels and what they are multiplied with in linear light, by the colour space, scale and bias of a texture's node."""
    space = str(_constant(node, "sourceColorSpace") or node.GetInput("file").GetAttr().GetColorSpace() or "auto")
    raw = space.lower().startswith(("raw", "lin")) or (
        space == "auto" and _identifier(node) == "UsdUVTexture" and not displayed
    )
    scale, bias = (_numbers(_constant(node, key), rest) for key, rest in (("scale", 1.0), ("bias", 0.0)))
    if not raw and not bias.any() and 0 <= scale.min() <= scale.max() <= 1:
        return pixels, (float(scale[0]), float(scale[1]), float(scale[2]))
    values = np.arange(256) / 255
    light = (values if raw else decode_srgb(values))[:, None] * scale + bias
    table = np.round(255 * encode_srgb(light.clip(0, 1))).astype(np.uint8)
    return np.stack([table[pixels[..., i], i] for i in range(3)], -1), (1.0, 1.0, 1.0)


def _color(mesh: RawMesh, colors: NDArray[np.float32]) -> None:
    """colors: (F, 3, 3), which become those of faces or of vertices; a vertex becomes as many as it has colours."""
    if (np.ptp(colors, axis=1) == 0).all():
        mesh.face_colors = np.ascontiguousarray(colors[:, 0])
        return
    number = np.unique(colors.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(-1, 3)
    mesh.colors = np.zeros((len(mesh.vertices), 3), np.float32)
    split(mesh, number)
    mesh.colors[mesh.faces.reshape(-1)] = colors.reshape(-1, 3)


def _surface(base: Base | None, colored: bool) -> Surface:
    if base is None or base.colors:
        name, colors = ("", "displayColor") if base is None else (base.name, base.colors)
        if colored:
            return Surface(name, "vertex colours", colors, linear=True, colored=True)
        return grey_surface(name, f"no material, no {colors}" if base is None else f"its mesh has no {colors}")
    if base.texture is not None:
        return Surface(base.name, "texture", base.source, base.factor, True, texture=base.texture)
    if base.missing:
        return grey_surface(base.name, base.source)
    return Surface(base.name, "uniform colour", base.source, base.factor, True)


def _coordinates(node: Any) -> tuple[str, NDArray[np.float64]]:
    """Primvar of a texture's coordinates, and what moves them: (2, 3)."""
    matrix = np.eye(3)
    for _ in range(8):  # a few transforms one after the other
        node = _source(node, "st") or _source(node, "in")
        if node is None or _identifier(node) != "UsdTransform2d":
            break
        turn = np.radians(float(_constant(node, "rotation") or 0))
        (sx, sy), (x, y) = _constant(node, "scale") or (1, 1), _constant(node, "translation") or (0, 0)
        c, s = np.cos(turn), np.sin(turn)
        matrix = matrix @ np.array([[c * sx, -s * sy, x], [s * sx, c * sy, y], [0, 0, 1]])
    name = None if node is None else _constant(node, "varname")
    return str(name or "st"), matrix[:2]


def _at(node: Any, axis: int) -> float:
    """Coordinate in [0, 1] of a texture whose coordinates are a value, (0, 0) without."""
    return min(max(float((_constant(node, "st") or (0, 0))[axis]), 0.0), 1.0)


def _source(node: Any, key: str) -> Any:
    """The shader that an input of ``node`` is connected to, None without."""
    from pxr import UsdShade

    given = node.GetInput(key)
    if not given:
        return None
    every = UsdShade.Utils.GetValueProducingAttributes(given)
    outputs = [a for a in every if UsdShade.Output.IsOutput(a)]
    return UsdShade.Shader(outputs[0].GetPrim()) if outputs else None


def _constant(node: Any, key: str) -> Any:
    """The value of an input, also one that an interface gives; None without."""
    from pxr import UsdShade

    given = node.GetInput(key)
    if not given:
        return None
    every = UsdShade.Utils.GetValueProducingAttributes(given)
    return every[0].Get() if every and UsdShade.Input.IsInput(every[0]) else None


def _identifier(shader: Any) -> str:
    return str(shader.GetIdAttr().Get() or "")


def _rgb(value: Any) -> tuple[float, float, float]:
    red, green, blue = _numbers(value, 1.0).clip(0, 1)
    return (float(red), float(green), float(blue))


def _numbers(value: Any, rest: float) -> NDArray[np.float64]:
    """(3,) of a colour or a vector, ``rest`` where it is none."""
    try:
        found = np.array([float(v) for v in list(value)[:3]])
    except (TypeError, ValueError):
        found = np.zeros(0)
    return found if len(found) == 3 and np.isfinite(found).all() else np.full(3, rest)
