"""The models of a BOP data set: files, models_info.json, and symmetries as the pose pipeline takes them.

models_info.json lists symmetries as transforms in millimetres; those of LM and LM-O were fitted, and turn by 179.8 degrees.
They are judged as they are listed; the pipeline, which needs turns that close, takes the nearest that does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..config import ConfigError
from ..errors import UserError
from ..meshes import reading
from ..meshes.diameter import largest_distance
from ..meshes.raw import MeshError
from ..objects import LARGEST_GROUP, ContinuousSymmetry, DiscreteSymmetry, ObjectSpec
from ..pose.symmetry import rotation_angle, symmetry_transforms

Array = NDArray[np.float64]

SAME_ANGLE = 2e-4  # rad; two fractions of a turn with denominators up to LARGEST_GROUP differ by more than twice this
FITTED_ANGLE = np.deg2rad(1.0)  # rad; a fitted turn is taken as the fraction of a turn that is so near
FITTED_FOLD = 12  # fractions of a turn with such denominators differ by 2.7 degrees and more
SAME_ROTATION = 0.03  # rad; two rotations of a group of LARGEST_GROUP differ by more
# Folders of models, those with colour first; BOP calls the others models_<kind>.
_FOLDERS = ("models", "models_fine", "models_reconst", "models_recon", "models_cad", "models_eval")


class BopError(UserError, FileNotFoundError):
    """A data set that is not there, or not in the BOP layout; the message names the file and what was expected."""


@dataclass(frozen=True)
class BopModel:
    """One object. id: of the data set. eval_file: the mesh that BOP measures with. info: of models_info.json."""

    id: int
    file: Path
    eval_file: Path
    info: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``obj_000001``, whatever the file is called."""
        return object_name(self.id)

    def vertices(self) -> Array:
        """(V, 3) of the mesh that BOP measures with, metres. Raises BopError."""
        try:
            points = np.asarray(reading.read(self.eval_file).vertices, np.float64)
        except (MeshError, OSError) as error:
            raise BopError(f"{self.eval_file} cannot be read as a mesh: {error}") from error
        if not len(points) or not np.isfinite(points).all():
            raise BopError(f"{self.eval_file} has {len(points)} vertices, expected finite ones")
        return points * 0.001

    def diameter(self) -> float:
        """Metres: models_info.json's, else the largest distance of two vertices."""
        listed = self.info.get("diameter")
        if isinstance(listed, int | float) and math.isfinite(listed) and listed > 0:
            return float(listed) * 0.001
        return largest_distance(self.vertices())

    def symmetries(self, step: float = 0.01) -> Array:
        """(K, 4, 4) transforms, metres, identity first, as bop_toolkit makes them of what is listed.

        step: of a continuous symmetry, the way of the farthest vertex between two turns, in diameters.
        """
        discrete = [np.eye(4), *(_transform(values) for values in self.info.get("symmetries_discrete", ()))]
        turns = [
            _about(s["axis"], 2 * np.pi * i / count, s.get("offset", (0, 0, 0)))
            for s in self.info.get("symmetries_continuous", ())
            for count in [math.ceil(np.pi / step)]
            for i in range(count)
        ]
        found = np.stack([turn @ T for T in discrete for turn in turns] if turns else discrete)
        found[:, :3, 3] *= 0.001
        return found


def object_name(id: int) -> str:
    return f"obj_{id:06d}"


def find_models(folder: Path, notes: list[str]) -> list[BopModel]:
    """All models by id; ``notes`` gets sentences. Raises BopError when there are none, ConfigError for a broken list."""
    folders = [folder / n for n in _FOLDERS] + sorted(p for p in folder.glob("models_*") if p.is_dir())
    files = next((found for f in folders if (found := _files(f, notes))), None)
    if files is None:
        held = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())) if folder.is_dir() else "nothing"
        raise BopError(
            f"{folder} holds no models/obj_XXXXXX.ply; it has {held}. BOP data sets ship the models as a separate archive"
        )
    own = next(iter(files.values())).parent
    measured = next((f for f in (folder / "models_eval", own.with_name(f"{own.name}_eval")) if f.is_dir()), own)
    eval_files = _files(measured, []) or files
    info = _info([own, measured, folder / "models"], notes)
    return [BopModel(id, file, eval_files.get(id, file), info.get(id, {})) for id, file in sorted(files.items())]


def listed_model(mesh: Path) -> BopModel | None:
    """The model that ``mesh`` (obj_000001.ply) is of the models_info.json beside it, None where there is none or it does not list
    it. Raises BopError for a broken list."""
    match = re.fullmatch(r"obj_(\d+)", mesh.stem, re.IGNORECASE)
    if match is None or not (mesh.parent / "models_info.json").is_file():
        return None
    info = _info([mesh.parent], []).get(int(match[1]))
    return None if info is None else BopModel(int(match[1]), mesh, mesh, info)


def _files(folder: Path, notes: list[str]) -> dict[int, Path]:
    """Meshes by id: obj_000001.ply, obj_01.ply, obj_1.ply."""
    found: dict[int, Path] = {}
    named = [p for p in folder.glob("*") if re.fullmatch(r"obj_.*\.ply", p.name, re.IGNORECASE)]
    for path in sorted(named, key=lambda p: (-len(p.name), p.name)):
        match = re.fullmatch(r"obj_(\d+)", path.stem, re.IGNORECASE)
        if match is None:
            notes.append(f"{path} is not read: its name is not obj_ and a number")
        elif int(match[1]) in found:
            notes.append(f"{path} is not read: {found[int(match[1])].name} is the same object")
        else:
            found[int(match[1])] = path
    return found


def _info(folders: Sequence[Path], notes: list[str]) -> dict[int, dict[str, Any]]:
    file = next((f / "models_info.json" for f in folders if (f / "models_info.json").is_file()), None)
    if file is None:
        notes.append(f"{folders[0]} has no models_info.json: no symmetry is known, and diameters are measured")
        return {}
    tree = read_json(file)
    try:
        return {int(key): dict(value) for key, value in tree.items()}
    except (ValueError, TypeError) as error:
        raise BopError(f"{file} must hold objects by number, found {error}; download it again") from error


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a file. Raises BopError."""
    try:
        tree = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BopError(f"{file} cannot be read as JSON ({str(error).splitlines()[0]}); download it again") from error
    if not isinstance(tree, dict):
        raise BopError(f"{file} must hold a mapping, found {type(tree).__name__}; download it again")
    return tree


def object_spec(model: BopModel, notes: list[str]) -> ObjectSpec:
    """The objects.yaml entry of a model; ``notes`` gets what was made of its symmetries. Raises ConfigError."""
    try:
        discrete = _generators(model.info.get("symmetries_discrete", ()), model.name, notes)
        continuous = tuple(
            _axis(s["axis"], s.get("offset", (0, 0, 0))) for s in model.info.get("symmetries_continuous", ())
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(
            f"{model.name}: symmetries of models_info.json cannot be read ({error}); expected symmetries_discrete as lists of 16 "
            "numbers, symmetries_continuous as axis and offset"
        ) from error
    return ObjectSpec(model.name, model.file, scale=0.001, discrete=discrete, continuous=continuous)


def _axis(axis: Any, offset_mm: Any) -> ContinuousSymmetry:
    direction = np.asarray(axis, np.float64).reshape(3)
    length = float(np.linalg.norm(direction))
    if not length > 0 or not math.isfinite(length):
        raise ValueError(f"axis {axis} has no direction")
    return ContinuousSymmetry(_triple(direction / length), _triple(np.asarray(offset_mm, np.float64) * 0.001))


def _transform(values: Any) -> Array:
    """(4, 4) of 16 numbers, millimetres. Raises ValueError for what is no rotation."""
    T = np.asarray(values, np.float64).reshape(4, 4)
    R = T[:3, :3]
    if not np.isfinite(T).all() or np.abs(R @ R.T - np.eye(3)).max() > 0.02 or np.linalg.det(R) < 0:
        raise ValueError(f"{np.round(T, 4).tolist()} is no rotation and translation")
    return T


def _about(axis: Any, angle: float, offset: Any) -> Array:
    """A turn about an axis of any length through a point, in the units of the point."""
    direction, point = np.asarray(axis, np.float64), np.asarray(offset, np.float64).reshape(3)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(direction / np.linalg.norm(direction) * angle).as_matrix()
    T[:3, 3] = point - T[:3, :3] @ point
    return T


def _generators(listed: Iterable[Any], name: str, notes: list[str]) -> tuple[DiscreteSymmetry, ...]:
    """A few turns that make all those listed: BOP lists a whole group, a DiscreteSymmetry stands for all its powers."""
    transforms = [T for T in map(_transform, listed) if rotation_angle(T[:3, :3]) > SAME_ANGLE]
    centre = _centre(transforms)
    turns: list[tuple[DiscreteSymmetry, Array]] = []
    for T in transforms:
        vector = Rotation.from_matrix(T[:3, :3]).as_rotvec()
        angle = float(np.linalg.norm(vector))
        fold = _fold(angle, len(transforms))
        if fold is None:
            notes.append(
                f"{name}: a symmetry of models_info.json turns by {np.rad2deg(angle):.4f} degrees, which within "
                f"{np.rad2deg(FITTED_ANGLE):g} degree is no whole fraction of a turn (up to {FITTED_FOLD} steps): the pose is found as "
                "without it; an axis of any turn belongs in symmetries_continuous"
            )
            continue
        point = axis_point(T) if centre is None else centre
        turn = DiscreteSymmetry(_triple(vector / angle), fold, _triple(point * 0.001))
        turns.append((turn, T[:3, :3]))
    kept: list[DiscreteSymmetry] = []
    group = np.eye(3)[None]
    for turn, R in sorted(turns, key=lambda item: -item[0].fold):
        # The rotation alone tells: no object has two symmetries that differ by a translation.
        if rotation_angle(np.swapaxes(group, 1, 2) @ R).min() > SAME_ROTATION:
            try:
                group = symmetry_transforms([*kept, turn], (), np.zeros(3))[:, :3, :3]
            except ConfigError:
                notes.append(
                    f"{name}: symmetries of models_info.json contradict each other; one of {turn.fold} steps is left out"
                )
                continue
            kept.append(turn)
    return tuple(kept)


def _fold(angle: float, listed: int) -> int | None:
    """How often a turn by ``angle`` (rad) is repeated until it closes: 5 for 1/5, and for 2/5 of a turn.

    listed: turns of the object. A group of many is listed whole, so that a single turn by 89.1 degrees is no 25/101 but a
    quarter that was fitted.
    """
    exact = _closing(angle, LARGEST_GROUP, SAME_ANGLE)
    if exact is None or (exact > FITTED_FOLD and listed < exact // 2):
        return _closing(angle, FITTED_FOLD, FITTED_ANGLE) or exact
    return exact


def _closing(angle: float, largest: int, tolerance: float) -> int | None:
    for fold in range(2, largest + 1):
        step = 2 * np.pi / fold
        nearest = round(angle / step)
        if nearest % fold and abs(angle - nearest * step) < tolerance:
            return fold
    return None


def _centre(transforms: Sequence[Array]) -> Array | None:
    """(3,) point in which all axes meet, nearest to the origin; None where they do not meet."""
    if not transforms:
        return None
    left = np.concatenate([np.eye(3) - T[:3, :3] for T in transforms])
    right = np.concatenate([T[:3, 3] for T in transforms])
    # What rounding leaves of the singular value along a single axis must not count.
    point, *_ = np.linalg.lstsq(left, right, rcond=1e-2)
    return point if np.abs(left @ point - right).max() < 2.0 else None


def axis_point(T: Array) -> Array:
    """(3,) point nearest to the origin on the axis about which T (4, 4), a turn, turns; in the units of T."""
    # I - R has no inverse; what rounding leaves of its smallest singular value must not count.
    point, *_ = np.linalg.lstsq(np.eye(3) - T[:3, :3], T[:3, 3], rcond=1e-3)
    return np.asarray(point, np.float64)


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return (x, y, z)
