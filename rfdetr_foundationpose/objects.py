"""objects.yaml: which detector label is which mesh, and what is known of the object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from .config import ConfigError
from .types import instance_name


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
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise ConfigError(
                f"object name {self.name!r} must be letters, digits and '_' (it becomes a topic and a tf frame)"
            )
        if not self.label:
            object.__setattr__(self, "label", self.name)
        if not self.scale > 0:
            raise ConfigError(
                f"object {self.name}: scale={self.scale} must be positive (metres per mesh unit: 0.001 for millimetres)"
            )
        if self.max_instances < 1:
            raise ConfigError(f"object {self.name}: max_instances={self.max_instances} must be at least 1")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"object {self.name}: threshold={self.threshold} must be in [0, 1]")

    @property
    def instance_names(self) -> list[str]:
        """Names of all instances that may be tracked, in the order of their ids."""
        return [instance_name(self.name, i) for i in range(self.max_instances)]


_KEYS = {
    "name",
    "mesh",
    "label",
    "scale",
    "color",
    "symmetries_discrete",
    "symmetries_continuous",
    "threshold",
    "max_instances",
}


def load_objects(path: str | Path) -> list[ObjectSpec]:
    """Read objects.yaml; mesh paths are relative to the file. Raises ConfigError that names entry and key."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"objects file {path} does not exist; set objects_file to your objects.yaml")
    tree = yaml.safe_load(path.read_text())
    entries = tree.get("objects") if isinstance(tree, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} must hold a non-empty list under 'objects'")
    specs = [_parse(entry, path) for entry in entries]
    names = [s.name for s in specs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: object name {name!r} is used {names.count(name)} times")
    return specs


def _parse(entry: Any, path: Path) -> ObjectSpec:
    if not isinstance(entry, Mapping) or "name" not in entry or "mesh" not in entry:
        raise ConfigError(f"{path}: each object needs 'name' and 'mesh', found {entry!r}")
    unknown = set(entry) - _KEYS
    if unknown:
        raise ConfigError(f"{path}: object {entry['name']}: unknown keys {sorted(unknown)}; known are {sorted(_KEYS)}")
    color = entry.get("color")
    return ObjectSpec(
        name=str(entry["name"]),
        mesh=(path.parent / str(entry["mesh"])).resolve(),
        label=str(entry.get("label", "")),
        scale=float(entry.get("scale", 1.0)),
        color=None if color is None else (int(color[0]), int(color[1]), int(color[2])),
        discrete=tuple(
            DiscreteSymmetry(_unit(s["axis"], entry), int(s["fold"]), _vector(s.get("point", (0, 0, 0))))
            for s in entry.get("symmetries_discrete", ())
        ),
        continuous=tuple(
            ContinuousSymmetry(_unit(s["axis"], entry), _vector(s.get("point", (0, 0, 0))))
            for s in entry.get("symmetries_continuous", ())
        ),
        threshold=None if entry.get("threshold") is None else float(entry["threshold"]),
        max_instances=int(entry.get("max_instances", 1)),
    )


def _vector(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


def _unit(values: Any, entry: Mapping[str, Any]) -> tuple[float, float, float]:
    vector: NDArray[np.float64] = np.asarray(_vector(values))
    norm = float(np.linalg.norm(vector))
    if norm == 0:
        raise ConfigError(f"object {entry['name']}: symmetry axis is zero")
    x, y, z = vector / norm
    return (float(x), float(y), float(z))
