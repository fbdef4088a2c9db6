"""objects.yaml: which detector label is which mesh, and what is known of the object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .types import instance_name
from .yaml_files import check_keys, number, read_yaml, shown, text, whole_number

LARGEST_GROUP = 120
"""A rotation group has at most so many elements: that of an icosahedron has 60, a prism of many sides may have more."""
MOST_INSTANCES = 100
"""One object has at most so many instances, since each has a topic of its own."""
LARGEST_SCALE = 1000.0
"""A mesh unit has at most so many metres: those of a mesh in kilometres."""


@dataclass(frozen=True)
class DiscreteSymmetry:
    """The object looks the same after turns of 2 pi / fold about the axis (unit, object frame) through point (m)."""

    axis: tuple[float, float, float]
    fold: int
    point: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ContinuousSymmetry:
    """The object looks the same after any turn about the axis (unit, object frame) through point (m)."""

    axis: tuple[float, float, float]
    point: tuple[float, float, float] = (0.0, 0.0, 0.0)


Symmetry = TypeVar("Symmetry", DiscreteSymmetry, ContinuousSymmetry)


@dataclass(frozen=True)
class ObjectSpec:
    """One entry of objects.yaml. scale: metres per mesh unit. color: RGB 0..255 for meshes without colour, or None."""

    name: str
    mesh: Path
    label: str = ""
    scale: float = 1.0
    color: tuple[int, int, int] | None = None
    discrete: tuple[DiscreteSymmetry, ...] = ()
    continuous: tuple[ContinuousSymmetry, ...] = ()
    threshold: float | None = None
    max_instances: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", self.name):
            raise ConfigError(
                f"object name {shown(self.name)} must be a letter and up to 63 letters, digits and '_' (it becomes a topic "
                "and a tf frame)"
            )
        if not self.label:
            object.__setattr__(self, "label", self.name)
        number(self.scale, f"object {self.name}: scale", 0, LARGEST_SCALE, unit="metres per mesh unit", above=True)
        whole_number(self.max_instances, f"object {self.name}: max_instances", 1, MOST_INSTANCES)
        if self.threshold is not None:
            number(self.threshold, f"object {self.name}: threshold", 0, 1)
        if len(self.continuous) > 2 or (len(self.continuous) == 2 and self.discrete):
            raise ConfigError(
                f"object {self.name}: two axes of symmetries_continuous make it a ball; leave out all other symmetries"
            )

    @property
    def instance_names(self) -> list[str]:
        """Names of all instances that may be tracked, in the order of their ids."""
        return [instance_name(self.name, i) for i in range(self.max_instances)]


_KEYS = (
    "name",
    "mesh",
    "label",
    "scale",
    "color",
    "symmetries_discrete",
    "symmetries_continuous",
    "threshold",
    "max_instances",
)
_EXAMPLE = "objects: [{name: mug, mesh: mug.obj}]"


def load_objects(path: str | Path) -> list[ObjectSpec]:
    """Read objects.yaml; mesh paths are relative to the file, or package:// and file:// URIs. Keys that begin with "x-" hold what
    entries share by anchors. Raises ConfigError that names file, entry and key."""
    path = Path(path).expanduser()
    if not path.exists():
        raise ConfigError(f"objects file {path} does not exist; set objects_file to your objects.yaml")
    tree = read_yaml(path)
    try:
        if not isinstance(tree, Mapping):
            raise ConfigError(f"must hold a list under 'objects', e.g. {_EXAMPLE}; found {shown(tree)}")
        check_keys({k: v for k, v in tree.items() if not str(k).startswith("x-")}, ("objects",), "the file")
        entries = tree.get("objects")
        if not isinstance(entries, list) or not entries:
            raise ConfigError(f"must hold a non-empty list under 'objects', e.g. {_EXAMPLE}; found {shown(entries)}")
        specs = [_parse(entry, i, path.parent) for i, entry in enumerate(entries, 1)]
        _check_names(specs)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return specs


def _check_names(specs: Sequence[ObjectSpec]) -> None:
    """Every instance has a topic and a tf frame of its own."""
    owner: dict[str, str] = {}
    for spec in specs:
        if owner.get(spec.name) == spec.name:
            raise ConfigError(f"object name {spec.name!r} is used more than once")
        for name in spec.instance_names:
            if name in owner:
                first, second = sorted((owner[name], spec.name), key=len)
                raise ConfigError(
                    f"object {second} and an instance of {first} would both be called {name!r}; rename {second}, or "
                    f"lower max_instances of {first}"
                )
            owner[name] = spec.name


def _parse(entry: Any, number_of: int, folder: Path) -> ObjectSpec:
    if not isinstance(entry, Mapping) or "name" not in entry or "mesh" not in entry:
        raise ConfigError(f"entry {number_of} of objects needs 'name' and 'mesh', found {shown(entry)}")
    name = text(entry["name"], f"entry {number_of} of objects: name")
    where = f"object {name}"
    check_keys(entry, _KEYS, where)
    label = entry.get("label")
    threshold = entry.get("threshold")
    return ObjectSpec(
        name=name,
        mesh=_mesh(text(entry["mesh"], f"{where}: mesh"), folder),
        label="" if label is None else text(label, f"{where}: label"),
        scale=number(
            entry.get("scale", 1.0), f"{where}: scale", 0, LARGEST_SCALE, unit="metres per mesh unit", above=True
        ),
        color=_color(entry.get("color"), f"{where}: color"),
        discrete=_symmetries(entry, "symmetries_discrete", where, _discrete),
        continuous=_symmetries(entry, "symmetries_continuous", where, _continuous),
        threshold=None if threshold is None else number(threshold, f"{where}: threshold", 0, 1),
        max_instances=whole_number(entry.get("max_instances", 1), f"{where}: max_instances", 1, MOST_INSTANCES),
    )


def _mesh(path: str, folder: Path) -> Path:
    scheme, _, rest = path.partition("://")
    if rest and scheme == "package":
        return _in_package(path, *rest.partition("/")[::2])
    if rest and scheme == "file" and rest.startswith("/"):
        return Path(unquote(rest))
    if rest:
        raise ConfigError(
            f"mesh {path} is no file of this machine: give its path, or package://<package>/<path in its share>"
        )
    try:
        return (folder / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links, no home
        raise ConfigError(f"mesh {path}: {error}") from error


def _in_package(uri: str, package: str, rest: str) -> Path:
    """As robot descriptions name meshes; the links that ``colcon build --symlink-install`` makes stay, by which the file is known
    to be in a package. Raises ConfigError where no sourced workspace has the package."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / package
        if prefix and package and share.is_dir():
            return (share / unquote(rest)).absolute()
    raise ConfigError(
        f"mesh {uri}: no sourced workspace (AMENT_PREFIX_PATH) has a package {package!r}; source the one that has it, or give the "
        "path of the file"
    )


def _color(value: Any, where: str) -> tuple[int, int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 3:
        raise ConfigError(f"{where}={shown(value)} must be three numbers in [0, 255], e.g. [200, 30, 30]")
    r, g, b = (whole_number(v, where, 0, 255) for v in value)
    return (r, g, b)


def _symmetries(
    entry: Mapping[Any, Any], key: str, where: str, read: Callable[[Mapping[Any, Any], str], Symmetry]
) -> tuple[Symmetry, ...]:
    listed = entry.get(key)
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise ConfigError(f"{where}: {key}={shown(listed)} must be a list, e.g. [{{axis: [0, 0, 1]}}]")
    found = []
    for item in listed:
        if not isinstance(item, Mapping) or "axis" not in item:
            raise ConfigError(f"{where}: {key} needs an 'axis', e.g. {{axis: [0, 0, 1]}}; found {shown(item)}")
        found.append(read(item, f"{where}: {key}"))
    return tuple(found)


def _discrete(item: Mapping[Any, Any], where: str) -> DiscreteSymmetry:
    check_keys(item, ("axis", "fold", "point"), where)
    if "fold" not in item:
        raise ConfigError(
            f"{where} needs 'fold': after a turn of 1/fold the object looks the same; found {shown(dict(item))}"
        )
    fold = whole_number(item["fold"], f"{where}: fold", 2, LARGEST_GROUP)
    return DiscreteSymmetry(_axis(item["axis"], where), fold, _vector(item.get("point", [0, 0, 0]), f"{where}: point"))


def _continuous(item: Mapping[Any, Any], where: str) -> ContinuousSymmetry:
    check_keys(item, ("axis", "point"), where)
    return ContinuousSymmetry(_axis(item["axis"], where), _vector(item.get("point", [0, 0, 0]), f"{where}: point"))


def _vector(values: Any, where: str) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3:
        raise ConfigError(f"{where}={shown(values)} must be three numbers, e.g. [0, 0, 1]")
    x, y, z = (number(v, where, -1e6, 1e6) for v in values)
    return (x, y, z)


def _axis(values: Any, where: str) -> tuple[float, float, float]:
    """A unit vector."""
    vector: NDArray[np.float64] = np.asarray(_vector(values, f"{where}: axis"))
    norm = float(np.linalg.norm(vector))
    if norm < 1e-9:
        raise ConfigError(f"{where}: axis={shown(values)} has no direction")
    x, y, z = vector / norm
    return (float(x), float(y), float(z))
