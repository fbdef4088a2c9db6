"""glTF 2.0: the triangles of the default scene, in its frame, metres."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from .gltf_file import GltfFile, Json, compressed
from .gltf_material import Materials
from .raw import MeshError, RawMesh, Surface
from .srgb import decode_srgb

Array = NDArray[np.float64]
_DRACO = "KHR_draco_mesh_compression"
_MOST_NODES = 100_000


def read(path: Path) -> RawMesh:
    """All triangles of a .gltf or .glb, at the pose that the file shows. Raises MeshError."""
    file = GltfFile(path)
    reader = _Reader(file)
    with np.errstate(all="ignore"):  # values that are not finite are told later
        for node, matrix in _nodes(file):
            reader.add(node, matrix)
        return reader.joined()


def _nodes(file: GltfFile, *, hidden: bool = False) -> Iterator[tuple[Json, Array]]:
    """Nodes of the scene that is shown, with their (4, 4) transform to the scene; also those that it hides where ``hidden``."""
    scenes = file.json.get("scenes") or []
    every = file.json.get("nodes") or []
    if scenes:
        roots = file.item("scenes", file.json.get("scene", 0)).get("nodes") or []
    else:
        children = {c for n in every if isinstance(n, dict) for c in n.get("children") or []}
        roots = [i for i in range(len(every)) if i not in children]
    stack = [(r, np.eye(4), 0) for r in reversed(roots)]
    seen = 0
    while stack:
        index, parent, depth = stack.pop()
        seen += 1
        if seen > _MOST_NODES or depth > len(every):
            raise MeshError("its nodes contain each other")
        node = file.item("nodes", index)
        shown = (node.get("extensions") or {}).get("KHR_node_visibility") or {}
        if shown.get("visible") is False and not hidden:  # nor what is below it
            continue
        matrix = parent @ local_matrix(node)
        yield node, matrix
        stack += [(c, matrix, depth + 1) for c in reversed(node.get("children") or [])]


def local_matrix(node: Json) -> Array:
    """(4, 4) of a node in its parent."""
    try:
        if node.get("matrix"):
            return np.array(node["matrix"], np.float64).reshape(4, 4).T
        return _transform(
            node.get("translation", (0, 0, 0)), node.get("rotation", (0, 0, 0, 1)), node.get("scale", (1, 1, 1))
        )
    except (TypeError, ValueError):
        raise MeshError(f"its node {node.get('name', '')!r} has a transform that is not understood") from None


def _transform(translation: Any, rotation: Any, scale: Any) -> Array:
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat(np.array(rotation, np.float64)).as_matrix() * np.array(scale, np.float64)
    result[:3, 3] = translation
    return result


class _Reader:
    """Collects primitives."""

    def __init__(self, file: GltfFile) -> None:
        self.file = file
        self.materials = Materials(file)
        self.parts: list[dict[str, Any]] = []
        self.surfaces: dict[tuple[Any, bool, bool], int] = {}
        self.found: list[Surface] = []
        self.skipped = 0

    def add(self, node: Json, matrix: Array) -> None:
        """The mesh of a node, once for every instance."""
        if "mesh" not in node:
            return
        mesh = self.file.item("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights")) or []
        for instance in self._instances(node):
            for primitive in mesh.get("primitives") or []:
                self._primitive(primitive, node, matrix @ instance, weights)

    def _instances(self, node: Json) -> list[Array]:
        given = ((node.get("extensions") or {}).get("EXT_mesh_gpu_instancing") or {}).get("attributes")
        if not given:
            return [np.eye(4)]
        columns = {k: self.file.floats(v).astype(np.float64) for k, v in given.items() if not k.startswith("_")}
        count = min((len(v) for v in columns.values()), default=0)
        defaults = {"TRANSLATION": (0, 0, 0), "ROTATION": (0, 0, 0, 1), "SCALE": (1, 1, 1)}
        rows = [[columns[k][i] if k in columns else v for k, v in defaults.items()] for i in range(count)]
        return [_transform(*row) for row in rows]

    def _primitive(self, primitive: Json, node: Json, matrix: Array, weights: list[float]) -> None:
        attributes = primitive.get("attributes") or {}
        faces = self._faces(primitive, attributes)
        if faces is None or "POSITION" not in attributes:
            self.skipped += 1
            return
        points = self.file.floats(attributes["POSITION"]).astype(np.float64)
        if points.shape[1] != 3:
            raise MeshError("its positions are not of three numbers")
        if len(faces) and int(faces.max()) >= len(points):
            raise MeshError(f"a face asks for vertex {int(faces.max())}, but its primitive has {len(points)}")
        normals = self.file.floats(attributes["NORMAL"]) if "NORMAL" in attributes else None
        for weight, target in zip(weights, primitive.get("targets") or [], strict=False):
            if weight and "POSITION" in target:
                points = points + float(weight) * self.file.floats(target["POSITION"])
        if "skin" in node and "JOINTS_0" in attributes:
            points, normals, matrix = self._skinned(node, attributes, points), None, np.eye(4)
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
        flipped = np.linalg.det(matrix[:3, :3]) < 0
        if flipped:
            faces = faces[:, ::-1]
        if normals is not None and (len(normals) != len(points) or normals.shape[1] != 3):
            normals = None
        if normals is not None:
            try:
                normals = (normals @ np.linalg.inv(matrix[:3, :3])).astype(np.float32)
            except np.linalg.LinAlgError:
                normals = None
        base = self.materials.base(primitive.get("material"))
        uv = None
        if base.texture is not None:
            uv = self._coordinates(attributes, f"TEXCOORD_{base.coordinates}", base.matrix, len(points))
        colors = self._colors(attributes, len(points))
        if "material" in primitive and colors is not None and (colors == 1).all():
            colors = None
        self.parts.append(
            {
                "points": points,
                "faces": np.ascontiguousarray(faces, np.int32),
                "normals": normals,
                "uv": uv,
                "colors": colors,
                "surface": self._surface(primitive.get("material"), uv is not None, colors is not None),
            }
        )

    def _faces(self, primitive: Json, attributes: Json) -> NDArray[np.int64] | None:
        """(F, 3) of triangles, strips and fans; None of points and lines."""
        mode = primitive.get("mode", 4)
        if mode not in (4, 5, 6):
            return None
        if _DRACO in (primitive.get("extensions") or {}):
            every = [primitive.get("indices"), *attributes.values()]
            if any("bufferView" not in self.file.item("accessors", a) for a in every if a is not None):
                raise compressed(_DRACO)
        if "indices" in primitive:
            index = self.file.accessor(primitive["indices"])[:, 0].astype(np.int64)
        elif "POSITION" in attributes:
            index = np.arange(len(self.file.accessor(attributes["POSITION"])), dtype=np.int64)
        else:
            return None
        if mode == 4:
            return index[: len(index) // 3 * 3].reshape(-1, 3)
        if len(index) < 3:
            return np.zeros((0, 3), np.int64)
        if mode == 5:
            strip = np.stack([index[:-2], index[1:-1], index[2:]], 1)
            strip[1::2] = strip[1::2, ::-1]
            return strip
        return np.stack([np.full(len(index) - 2, index[0]), index[1:-1], index[2:]], 1)

    def _coordinates(self, attributes: Json, name: str, matrix: Array, count: int) -> NDArray[np.float32] | None:
        if name not in attributes:
            note = (
                f"a material asks for the texture coordinates {name}, which its mesh does not have; export them (UVs)"
            )
            if note not in self.materials.notes:
                self.materials.notes.append(note)
            return None
        uv = self.file.floats(attributes[name]).astype(np.float64)
        if uv.shape != (count, 2):
            raise MeshError(f"its {name} are {uv.shape}, expected {(count, 2)}")
        uv = uv @ matrix[:, :2].T + matrix[:, 2]
        uv[:, 1] = 1 - uv[:, 1]  # ours begin at the bottom of the image
        return uv.astype(np.float32)

    def _colors(self, attributes: Json, count: int) -> NDArray[np.float32] | None:
        """(count, 3) linear, None where there are none.

        glTF's are linear. But who writes bytes copies those of an sRGB image (trimesh, Open3D, most of what machine
        learning writes), as integers or divided by 255: all on that grid, where linear values would not be. What packs
        linear values into bytes (gltfpack, glTF-Transform) names itself or KHR_mesh_quantization.
        """
        if "COLOR_0" not in attributes:
            return None
        colors = self.file.floats(attributes["COLOR_0"], colors=True)[:, :3].clip(0, 1)
        if colors.shape != (count, 3):
            raise MeshError(f"its COLOR_0 are {colors.shape}, expected {(count, 3)} or with alpha")
        bytes_of = colors * 255
        generator = str((self.file.json.get("asset") or {}).get("generator", ""))
        used = self.file.json.get("extensionsUsed")
        packed = generator.startswith("gltfpack") or (isinstance(used, list) and "KHR_mesh_quantization" in used)
        if not packed and np.abs(bytes_of - np.round(bytes_of)).max(initial=0) < 2e-3:
            return decode_srgb(colors).astype(np.float32)
        return colors

    def _skinned(self, node: Json, attributes: Json, points: Array) -> Array:
        """Points in the scene, at the pose that the joints have in the file."""
        skin = self.file.item("skins", node["skin"])
        joints = skin.get("joints") or []
        world = {id(n): m for n, m in _nodes(self.file, hidden=True)}
        matrices = np.stack([world.get(id(self.file.item("nodes", j)), np.eye(4)) for j in joints])
        if "inverseBindMatrices" in skin:
            inverse = self.file.floats(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
            matrices = matrices @ inverse[: len(matrices)]
        index = self.file.accessor(attributes["JOINTS_0"]).astype(np.int64)
        weight = self.file.floats(attributes["WEIGHTS_0"]).astype(np.float64)
        if len(index) and int(index.max()) >= len(matrices):
            raise MeshError(f"its vertices hang on joint {int(index.max())} of {len(matrices)}")
        total = weight.sum(1, keepdims=True)
        blended = np.einsum("vj,vjrc->vrc", weight / np.where(total > 0, total, 1), matrices[index])
        return np.asarray(np.einsum("vrc,vc->vr", blended[:, :3, :3], points) + blended[:, :3, 3])

    def _surface(self, material: Any, textured: bool, colored: bool) -> int:
        key = (material, textured, colored)
        if key not in self.surfaces:
            base = self.materials.base(material)
            if not textured and base.texture is not None:
                base = type(base)(base.name, base.factor, None, "no texture coordinates", True, 0, base.matrix)
            self.surfaces[key] = len(self.found)
            self.found.append(self.materials.surface(base, colored))
        return self.surfaces[key]

    def joined(self) -> RawMesh:
        """All parts in one."""
        if not self.parts:
            what = f"{self.skipped} primitives of points or lines" if self.skipped else "no mesh in its scene"
            raise MeshError(f"it has no triangles ({what}); export it as triangles")
        sizes = [len(p["points"]) for p in self.parts]
        first = np.cumsum([0, *sizes])

        def stacked(key: str, width: int, default: float) -> NDArray[np.float32] | None:
            if all(p[key] is None for p in self.parts):
                return None
            filled = [
                np.full((n, width), default, np.float32) if p[key] is None else p[key]
                for p, n in zip(self.parts, sizes, strict=True)
            ]
            return np.concatenate(filled)

        mesh = RawMesh(
            vertices=np.concatenate([p["points"] for p in self.parts]),
            faces=np.concatenate([p["faces"] + int(o) for p, o in zip(self.parts, first[:-1], strict=True)]).astype(
                np.int32
            ),
            surfaces=self.found,
            surface=np.concatenate([np.full(len(p["faces"]), p["surface"], np.int32) for p in self.parts]),
            colors=stacked("colors", 3, 1.0),
            uv=stacked("uv", 2, 0.0),
            normals=stacked("normals", 3, 0.0),
            notes=self.materials.notes,
        )
        if self.skipped:
            mesh.notes.append(f"{self.skipped} of its primitives are points or lines and are left out")
        return mesh
