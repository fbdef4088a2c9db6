"""The objects of a bench, and where tracking starts in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..objects import ObjectSpec, load_objects
from ..pose.example_scene import ExampleFrame
from ..pose.mesh import ObjectModel, load_object
from ..resources import default_objects_file

MOST_SHOWN = 4
"""A scene shows so many objects."""


def most_objects(objects_file: Path | None = None) -> int:
    """How many objects of an objects.yaml (None: the demo's) a scene can show."""
    return min(len(load_objects(objects_file or default_objects_file())), MOST_SHOWN)


def smallest_objects(count: int, objects_file: Path | None = None) -> tuple[list[ObjectSpec], list[ObjectModel]]:
    """The ``count`` smallest objects of an objects.yaml (None: the demo's), an object "mug" first.

    Raises ConfigError when there are fewer, and MeshError.
    """
    file = objects_file or default_objects_file()
    specs = {s.name: s for s in load_objects(file)}
    if len(specs) < count:
        raise ConfigError(f"{file} has {len(specs)} objects, {count} are to be tracked together")
    models = {name: load_object(spec) for name, spec in specs.items()}
    order = sorted(specs, key=lambda name: (name != "mug", models[name].diameter))[:count]
    return [specs[name] for name in order], [models[name] for name in order]


def before(frames: Sequence[ExampleFrame], i: int) -> dict[str, NDArray[np.float64]]:
    """Where tracking starts in frame i: the true poses of the frame before, as after a perfect step."""
    return frames[max(i % len(frames) - 1, 0)].truths
