"""COLLADA, the format of most ROS robot descriptions and Gazebo models.

Parsed by pycollada, which trimesh reads it with too; images are resolved here, since what it cannot find becomes white.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import images
from .normals import split
from .polygons import triangulate
from .raw import MeshError, RawMesh, Surface, Texture, grey_surface, joined
from .srgb import encode_srgb


def read(path: Path) -> RawMesh:
    """All polygons of the scene, in the file's unit and axes. Raises MeshError."""
    try:
        import collada
    except ImportError as error:
        raise MeshError("COLLADA needs pycollada: pip install pycollada; or export it as GLB") from error
    notes: list[str] = []
    data = path.read_bytes()
    if _ROWS.search(data):
        data = _ROWS.sub(lambda found: _COMMA.sub(b".", found[0]), data)
    document: Any = collada.Collada(io.BytesIO(data), ignore=[collada.common.DaeError])
    bound = _without_broken_materials(data, {m.id for m in document.materials}, notes)
    if bound != data:  # a geometry that is bound to one would be missing
        document = collada.Collada(io.BytesIO(bound), ignore=[collada.common.DaeError])
    looks = _Looks(path, document, notes)
    parts = []
    if document.scene is None:
        raise MeshError("it shows no scene; export it as GLB")
    for geometry in (*document.scene.objects("geometry"), *_skinned(document, notes)):
        parts += _parts(geometry, looks)
    if not parts and document.geometries:
        placed = [g.bind(np.eye(4), {}) for g in document.geometries]
        parts = [part for geometry in placed for part in _parts(geometry, looks)]
        if parts:
            words = "; ".join(dict.fromkeys(str(getattr(e, "msg", e)) for e in document.errors))
            notes.append(
                f"its scene shows none of its geometries ({words[:160] or 'it is empty'}), so all are taken, unplaced"
            )
    if not parts:
        raise MeshError("it has no faces (lines only, or nothing in its scene?); export it as triangles")
    mesh = joined(parts)
    mesh.notes += notes
    mesh.unit = None if document.assetInfo is None else document.assetInfo.unitmeter
    return mesh


_COMMA = re.compile(rb"(?<=\d),(?=\d)")
_ROWS = re.compile(rb">[\s\d.,eE+-]*\d,\d[\s\d.,eE+-]*<")
"""Numbers with decimal commas, as programs in some languages write them."""
_BOUND = re.compile(
    rb"""<instance_material\b[^>]*\btarget\s*=\s*["']#?([^"']*)["'][^>]*?(?:/>|>.*?</instance_material>)""", re.DOTALL
)


def _without_broken_materials(data: bytes, known: set[str], notes: list[str]) -> bytes:
    """The file without the uses of materials that are not ``known``, since they are not there or are damaged."""
    missing: dict[str, None] = {}

    def kept(found: re.Match[bytes]) -> bytes:
        name = html.unescape(found[1].decode("utf-8", "replace"))
        if name in known:
            return found[0]
        missing[name] = None
        return b""

    data = _BOUND.sub(kept, data)
    if missing:
        names = ", ".join(repr(name) for name in list(missing)[:6])
        notes.append(f"its materials {names} are not defined or damaged; what has them is rendered grey")
    return data


def _skinned(document: Any, notes: list[str]) -> list[Any]:
    """The geometries under skins and morphs, in the shape that these start from."""
    found = []
    for controller in document.scene.objects("controller"):
        geometry = getattr(controller, "geometry", None)
        if geometry is None:
            geometry = controller.original.source_geometry.bind(controller.matrix, controller.materialnodebysymbol)
        found.append(geometry)
    if found:
        notes.append("it is moved by joints or targets, and is shown in the shape that these start from")
    return found


def _parts(geometry: Any, looks: _Looks) -> list[RawMesh]:
    every = (_part(primitive, np.asarray(geometry.matrix), looks) for primitive in geometry.primitives())
    return [part for part in every if part is not None]


def _part(primitive: Any, matrix: NDArray[np.floating], looks: _Looks) -> RawMesh | None:
    """A primitive of triangles or polygons; None of lines and of nothing. matrix: (4, 4), which pycollada has applied."""
    vertices, index = primitive.vertex, primitive.vertex_index
    if vertices is None or index is None or not len(index):
        return None
    if hasattr(primitive, "polyindex"):
        counts = np.diff(np.asarray(primitive.polyindex), axis=1)[:, 0]
    elif np.asarray(index).ndim == 2 and index.shape[1] == 3:
        counts = np.full(len(index), 3)
    else:
        return None
    corners = np.asarray(index).reshape(-1)
    if not len(corners) or int(corners.min()) < 0 or int(corners.max()) >= len(vertices):
        raise MeshError("a face of it asks for a vertex that is not there; is it cut off?")
    triangles, _ = triangulate(counts, corners, np.asarray(vertices, np.float64))
    if not len(triangles):
        return None
    mesh = RawMesh(np.asarray(vertices, np.float64), corners.astype(np.int32)[triangles], [])
    if primitive.texcoordset:
        which = looks.coordinates(primitive)
        mesh.uv = np.asarray(primitive.texcoordset[which], np.float32)[:, :2]
        mesh.uv_index = _picked(primitive.texcoord_indexset[which], triangles, len(mesh.uv))
        if mesh.uv_index is None:
            mesh.uv = None
    if primitive.normal is not None and primitive.normal_index is not None:
        mesh.normals = np.asarray(primitive.normal, np.float32)
        mesh.normal_index = _picked(primitive.normal_index, triangles, len(mesh.normals))
        if mesh.normal_index is None:
            mesh.normals = None
    _take_colors(mesh, primitive, triangles)
    if np.linalg.det(matrix[:3, :3]) < 0:
        mesh.turn_faces(np.ones(len(mesh.faces), bool))
    mesh.surfaces = [looks.surface(primitive, mesh)]
    return mesh


def _picked(index: Any, triangles: NDArray[np.signedinteger], size: int) -> NDArray[np.int32] | None:
    flat = np.asarray(index).reshape(-1)
    if int(triangles.max()) >= len(flat) or not len(flat) or not 0 <= int(flat.min()) <= int(flat.max()) < size:
        return None
    return np.asarray(flat[triangles], np.int32)


def _take_colors(mesh: RawMesh, primitive: Any, triangles: NDArray[np.signedinteger]) -> None:
    """Colours of the vertices, which COLLADA indexes of their own: a vertex becomes as many as it has colours."""
    given = primitive.original.sources.get("COLOR") if hasattr(primitive, "original") else None
    if not given:
        return
    offset, _, _, _, source = given[0]
    table = np.asarray(source.data, np.float32)
    index = np.asarray(primitive.index).reshape(-1, np.asarray(primitive.index).shape[-1])
    if offset >= index.shape[1] or table.ndim != 2 or table.shape[1] < 3 or int(index[:, offset].max()) >= len(table):
        return
    colors = table[index[:, offset]][triangles][..., :3].clip(0, 1)
    if (colors == 1).all():  # white is what exporters fill in
        return
    number = np.unique(colors.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(-1, 3)
    mesh.colors = np.zeros((len(mesh.vertices), 3), np.float32)
    split(mesh, number)
    mesh.colors[mesh.faces.reshape(-1)] = colors.reshape(-1, 3)


class _Looks:
    """Surfaces by effect."""

    def __init__(self, path: Path, document: Any, notes: list[str]) -> None:
        self.path, self.notes = path, notes
        self.files = {image.id: _file_of(image) for image in document.images}
        tools = [str(c.authoring_tool or "") for c in getattr(document.assetInfo, "contributors", None) or []]
        self.linear = any(
            tool.startswith("Blender") for tool in tools
        )  # it writes the colours of its scene, which are linear
        self._textures: dict[tuple[str, tuple[str, str]], Texture | None] = {}

    def coordinates(self, primitive: Any) -> int:
        """Which of the primitive's coordinate sets its image is placed by: the one that its material binds, else the first."""
        _, used = _shown(_effect(primitive))
        bound = (getattr(primitive, "inputmap", None) or {}).get("" if used is None else str(used.get("texcoord")))
        sets = [str(s[3]) for s in primitive.original.sources.get("TEXCOORD", [])] if bound else []
        number = str(int(bound[1] or 0)) if bound else ""
        return sets.index(number) if number in sets[: len(primitive.texcoordset)] else 0

    def surface(self, primitive: Any, mesh: RawMesh) -> Surface:
        material, effect = primitive.material, _effect(primitive)
        name = str(getattr(material, "name", None) or getattr(material, "id", None) or "")
        channel, used = _shown(effect)
        reference = None if effect is None or used is None else self._image_of(effect, str(used.get("texture")))
        if reference is not None and mesh.uv is not None:
            texture = self._texture(reference, name, _wrap(effect, str(used.get("texture"))))
            if texture is not None:
                height, width = texture.pixels.shape[:2]
                file = reference.replace("\\", "/").rpartition("/")[2]
                return Surface(name, "texture", f"texture {file} ({width} x {height})", texture=texture)
        if mesh.colors is not None:
            return Surface(name, "vertex colours", "vertex colours", colored=True)
        color = getattr(effect, channel, None)
        if isinstance(color, tuple) and len(color) >= 3:
            red, green, blue = (min(max(float(v), 0.0), 1.0) for v in color[:3])
            if self.linear:
                red, green, blue = encode_srgb(np.array([red, green, blue])).tolist()
            shown = "/".join(str(round(255 * v)) for v in (red, green, blue))
            light = " (Blender's linear light)" if self.linear else ""
            return Surface(name, "uniform colour", f"{channel} colour {shown}{light}", (red, green, blue))
        return grey_surface(
            name, "its image is missing" if reference else "its material has neither an image nor a colour"
        )

    def _texture(self, reference: str, name: str, wrap: tuple[str, str]) -> Texture | None:
        key = (reference, wrap)
        if key not in self._textures:
            try:
                self._textures[key] = Texture(images.read(images.find(reference, self.path.parent)), wrap)
            except images.ImageError as error:
                self._textures[key] = None
                self.notes.append(
                    f"the texture of material {name!r} {error}; that part is rendered without it and may turn about an "
                    "axis unseen"
                )
        return self._textures[key]

    def _image_of(self, effect: Any, name: str) -> str | None:
        """File of an image: by sampler and surface as the format has it, or by its id as MeshLab writes it."""
        nodes = _by_sid(effect)
        for _ in range(4):
            if name in self.files:
                return self.files[name]
            step = nodes.get(name)
            inner = [] if step is None else list(step.iter())
            found = next((n for n in inner if _tag(n) in ("source", "init_from") and (n.text or "").strip()), None)
            linked = next((n.get("url", "") for n in inner if _tag(n) == "instance_image"), "")  # COLLADA 1.5
            if not linked and (found is None or not found.text):
                return name if "." in name else None
            name = linked.lstrip("#") or (found.text.strip() if found is not None and found.text else "")
        return None


def _effect(primitive: Any) -> Any:
    return getattr(primitive.material, "effect", primitive.material)


def _by_sid(effect: Any) -> dict[Any, Any]:
    node = effect.xmlnode
    return {} if node is None else {n.get("sid"): n for n in node.iter() if n.get("sid")}


def _shown(effect: Any) -> tuple[str, Any]:
    """Which channel is the colour, "diffuse" or "emission", and the XML node of its image, None without. Emission is where
    nothing else is to be seen."""
    node = getattr(effect, "xmlnode", None)
    for channel in ("diffuse", "emission"):
        top = None if node is None else next((n for n in node.iter() if _tag(n) == channel), None)
        used = None if top is None else next((n for n in top if _tag(n) == "texture"), None)
        color = getattr(effect, channel, None)
        if used is not None or (isinstance(color, tuple) and max(color[:3], default=0) > 0):
            return channel, used
    return "diffuse", None


_WRAP = {"MIRROR": "mirror", "CLAMP": "clamp", "BORDER": "clamp", "NONE": "clamp"}


def _wrap(effect: Any, sampler: str) -> tuple[str, str]:
    node = _by_sid(effect).get(sampler)
    said = {} if node is None else {_tag(n): (n.text or "").strip().upper() for n in node.iter()}
    return _WRAP.get(said.get("wrap_s", ""), "repeat"), _WRAP.get(said.get("wrap_t", ""), "repeat")


def _file_of(image: Any) -> str:
    """As the file names it: in ``init_from`` itself, or in a ``ref`` there (COLLADA 1.5)."""
    if image.path:
        return str(image.path)
    inner = [] if image.xmlnode is None else [n.text.strip() for n in image.xmlnode.iter() if (n.text or "").strip()]
    return inner[0] if inner else ""


def _tag(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]
