"""Which class of the network is which object of objects.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..objects import ObjectSpec
from .detector import DetectorError


@dataclass(frozen=True)
class ClassMap:
    """objects: network class index -> object name. labels: class index -> class name, of the mapped classes."""

    objects: dict[int, str]
    labels: dict[int, str]


def map_classes(class_names: Mapping[int, str], specs: Sequence[ObjectSpec], weights: str) -> ClassMap:
    """Find each object's label among the network's classes (class index -> name). ``weights`` names them in errors.

    Raises DetectorError: no classes, no objects, an object whose label is no class, two objects with one label.
    """
    if not class_names:
        raise DetectorError(
            f"{weights} names no classes; save the checkpoint with class names, or train it with train detector"
        )
    if not specs:
        raise DetectorError("there are no objects to detect; list at least one in objects.yaml")
    index = {name: i for i, name in class_names.items()}
    objects: dict[int, str] = {}
    for spec in specs:
        if spec.label not in index:
            # Only what is a slip of the pen: tea_box is no cereal_box.
            close = difflib.get_close_matches(spec.label, index, n=1, cutoff=0.8)
            hint = f" Did you mean {close[0]!r}? Set 'label' in objects.yaml. Else" if close else ""
            raise DetectorError(
                f"object {spec.name}: label {spec.label!r} is no class of {weights}, which knows "
                f"{', '.join(sorted(index))}.{hint} train a detector that knows it: 'rfdetr-foundationpose train detector "
                "--objects-file YOUR_OBJECTS.yaml', then set detector.weights to what that writes; without one, set "
                "detector.source to mask-topic (any segmenter) or none (a box drawn once; docs/your-object.md)"
            )
        i = index[spec.label]
        if i in objects:
            raise DetectorError(
                f"objects {objects[i]} and {spec.name} have the same label {spec.label!r}, so a detection does not "
                "say which it is; give each its own, or raise max_instances of one"
            )
        objects[i] = spec.name
    return ClassMap(objects, {i: class_names[i] for i in objects})


def thresholds(specs: Sequence[ObjectSpec], default: float) -> dict[str, float]:
    """Object -> lowest score: its own from objects.yaml, else detector.threshold."""
    return {s.name: default if s.threshold is None else s.threshold for s in specs}
