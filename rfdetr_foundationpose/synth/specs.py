"""Random objects as mesh files, for what is measured through the same door that a user's meshes take."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..objects import ObjectSpec
from .objects import random_object


def random_specs(folder: Path, seeds: Iterable[int]) -> list[ObjectSpec]:
    """One random object a seed as ``folder/object_<seed>.glb``; about 15 ms each. ``folder`` must exist.

    Trainings use the seeds s * 1,000,000 + i for s below 100,000 (``train.object_stream``).
    """
    specs = []
    for seed in seeds:
        item = random_object(np.random.default_rng(seed))
        name = f"object_{seed}"
        path = folder / f"{name}.glb"
        item.mesh.export(path)
        specs.append(ObjectSpec(name, path, discrete=item.discrete, continuous=item.continuous))
    return specs
