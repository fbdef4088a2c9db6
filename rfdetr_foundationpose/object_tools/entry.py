"""An entry of objects.yaml, written into the file without touching what else is there."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..config import ConfigError
from ..objects import ContinuousSymmetry, DiscreteSymmetry, load_objects

HEAD = "# Objects whose poses are wanted: detector label -> mesh. Mesh paths are relative to this file.\nobjects:\n"


def entry_text(
    name: str,
    mesh: Path,
    file: Path,
    *,
    label: str = "",
    scale: float = 1.0,
    discrete: Sequence[DiscreteSymmetry] = (),
    continuous: Sequence[ContinuousSymmetry] = (),
) -> str:
    """The entry as YAML, its mesh relative to ``file``'s folder."""
    relative = os.path.relpath(mesh.resolve(), file.resolve().parent)
    lines = [f"- name: {name}", f"  mesh: {_quoted(Path(relative).as_posix())}"]
    if label and label != name:
        lines.append(f"  label: {_quoted(label)}")
    if scale != 1.0:
        lines.append(f"  scale: {scale:g}  # metres per mesh unit")
    for key, found, extra in (
        ("symmetries_continuous", continuous, lambda s: ""),
        ("symmetries_discrete", discrete, lambda s: f", fold: {s.fold}"),
    ):
        if found:
            lines.append(f"  {key}:")
        for s in found:  # type: ignore[attr-defined]
            point = f", point: [{_numbers(s.point, 15)}]" if any(abs(v) > 5e-4 for v in s.point) else ""
            lines.append(f"    - {{axis: [{_numbers(s.axis)}]{extra(s)}{point}}}")  # type: ignore[no-untyped-call]
    return "\n".join(lines) + "\n"


def write_entry(file: Path, name: str, text: str, *, overwrite: bool = False) -> str:
    """Put an entry into ``file``, which is made where there is none; comments and other entries stay as they are.

    Returns "added" or "replaced". Raises ConfigError when an entry of that name exists and ``overwrite`` is not set, or
    when the file cannot be extended by text.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(HEAD + _indented(text, "  "))
        return "added"
    before = file.read_text()
    names = [s.name for s in load_objects(file)]
    if name in names and not overwrite:
        raise ConfigError(
            f"{file} has an object {name!r} already; give another --name, or --overwrite to replace its entry"
        )
    items = list(re.finditer(r"^([ \t]*)- ", before, re.MULTILINE))
    items = [m for m in items if m[1] == items[0][1]] if items else []
    if not items:
        raise ConfigError(f"{file} does not list its objects one a line ('- name: ...'); add this by hand:\n{text}")
    indent = items[0][1]
    if name in names:
        after = _replaced(before, items, indent, name, text)
    else:
        after = before.rstrip("\n") + "\n" + _indented(text, indent)
    _check(file, after, name, [*names, *([name] if name not in names else [])], text)
    part = file.with_name(file.name + ".part")
    part.write_text(after)
    part.replace(file)
    return "replaced" if name in names else "added"


def _replaced(before: str, items: list[re.Match[str]], indent: str, name: str, text: str) -> str:
    starts = [m.start() for m in items] + [len(before)]
    for start, end in itertools.pairwise(starts):
        parsed = yaml.safe_load(before[start:end])
        if isinstance(parsed, list) and str(parsed[0].get("name")) == name:
            return before[:start] + _indented(text, indent) + before[end:]
    raise ConfigError(f"the entry of {name!r} was not found as text")


def _check(file: Path, after: str, name: str, wanted: Sequence[str], text: str) -> None:
    """Nothing is written that would not be read back as meant."""
    try:
        entries = yaml.safe_load(after)["objects"]
        found = [str(e["name"]) for e in entries]
    except (yaml.YAMLError, KeyError, TypeError):
        found = []
    if sorted(found) != sorted(wanted):
        raise ConfigError(f"{file} cannot be extended by text (its list does not end it?); add this by hand:\n{text}")


def _indented(text: str, indent: str) -> str:
    return "".join(indent + line + "\n" for line in text.splitlines())


def _numbers(values: Sequence[float], digits: int = 9) -> str:
    return ", ".join(f"{round(v, 6):.{digits}g}" for v in values)


def _quoted(text: str) -> str:
    """As it is where YAML reads it back so, else in quotes."""
    try:
        same = yaml.safe_load(f"x: {text}") == {"x": text}
    except yaml.YAMLError:
        same = False
    return text if same else yaml.safe_dump(text, default_style='"').strip()
