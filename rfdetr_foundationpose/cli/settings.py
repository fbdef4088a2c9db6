"""Settings that a command runs with: defaults, a file, single changes, and an objects.yaml made for a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config import Config
    from ..objects import ObjectSpec


def played_settings() -> Config:
    """Defaults for a node that a recording is played to: a lost image would say nothing about the node, and covariances
    bring each pose's confidence."""
    from ..config import from_flat

    return from_flat({"input.reliability": "reliable", "output.covariance": True})


def read_settings(
    file: Path | None, changes: Sequence[str], objects_file: Path | None, base: Config | None = None
) -> Config:
    """``base`` (None: the defaults), changed by a file, then by single changes, then by the objects file.

    Raises ConfigError, also for an objects file that is named twice.
    """
    from ..config import Config, from_flat, load_yaml

    base = base or Config()
    config = base if file is None else load_yaml(file, base)
    values = parse_changes(changes)
    if objects_file is not None:
        if "objects_file" in values:
            raise ConfigError(
                f"--set objects_file={values['objects_file']} and --objects-file {objects_file}: give one of them"
            )
        values["objects_file"] = str(objects_file)
    return from_flat(values, config)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Setting -> value of "NAME=VALUE" texts, as --set takes them. Raises ConfigError."""
    from ..config import iter_settings
    from ..yaml_files import parse_yaml

    kinds = {s.path: s.type for s in iter_settings()}
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = (part.strip() for part in change.partition("="))
        if not equals or not name:
            raise ConfigError(f"--set {change}: expected NAME=VALUE, e.g. detector.threshold=0.4")
        values[name] = text if kinds.get(name, str) is str else parse_yaml(text, f"--set {change}", lines=False)
    return values


def parse_rate(rate: str) -> float | None:
    """None for "auto". Raises typer.BadParameter for anything but a positive number."""
    if rate == "auto":
        return None
    try:
        value = float(rate)
    except ValueError:
        value = float("nan")
    if not 0.001 <= value <= 1000:
        raise typer.BadParameter(f"--rate={rate} must be auto or a number in [0.001, 1000]")
    return value


def write_known(
    file: Path, listed: Sequence[ObjectSpec], targets: Sequence[str], path: Path, *, everything: bool
) -> list[ObjectSpec]:
    """To ``path``: the objects.yaml of the pipeline, with room for as many instances as are on the table; returns it read.

    listed: the entries of ``file``. everything: those that are no targets too.
    """
    import yaml

    from ..objects import load_objects
    from ..yaml_files import read_yaml

    counts = Counter(targets)
    entries = [
        {**entry, "mesh": str(spec.mesh), "max_instances": max(spec.max_instances, counts[spec.name])}
        for entry, spec in zip(read_yaml(file.expanduser())["objects"], listed, strict=True)
        if everything or counts[spec.name]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"objects": entries}, sort_keys=False))
    return load_objects(path)
