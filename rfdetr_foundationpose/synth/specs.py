"""What is measured on: a user's objects, or random ones as mesh files, which take the same door."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..objects import ObjectSpec, load_objects
from .objects import SynthObject, random_object


@contextmanager
def specs_or_random(
    objects_file: Path | None, seeds: Iterable[int], make: Callable[[np.random.Generator], SynthObject] = random_object
) -> Iterator[list[ObjectSpec]]:
    """The entries of an objects.yaml, or for None an object that ``make`` draws a seed; its files last as long as the context."""
    if objects_file is not None:
        yield load_objects(objects_file)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield random_specs(Path(folder), seeds, make)


def random_specs(
    folder: Path, seeds: Iterable[int], make: Callable[[np.random.Generator], SynthObject] = random_object
) -> list[ObjectSpec]:
    """One random object a seed as ``folder/object_<seed>.glb``; about 15 ms each. ``folder`` must exist.

    Trainings use the seeds s * 1,000,000 + i for s below 100,000 (``train.object_stream``).
    """
    specs = []
    for seed in seeds:
        item = make(np.random.default_rng(seed))
        name = f"object_{seed}"
        path = folder / f"{name}.glb"
        item.mesh.export(path)
        specs.append(ObjectSpec(name, path, discrete=item.discrete, continuous=item.continuous))
    return specs
