"""Settings and objects files with mistakes end in settings or in one sentence; ``make fuzz`` runs many of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfdetr_foundationpose.config import load_yaml
from rfdetr_foundationpose.objects import load_objects
from support.fuzz import cases, damaged, mistyped, try_seeds

PER_FILE = cases(20)
OBJECTS = """\
objects:
  - name: mug
    mesh: meshes/mug.glb
    label: cup
    scale: 0.001
    color: [200, 20, 20]
    max_instances: 2
    threshold: 0.4
    symmetries_discrete:
      - {axis: [0, 0, 1], fold: 2, point: [0, 0, 0.05]}
  - name: can
    mesh: can.ply
    symmetries_continuous:
      - axis: [0, 1, 0]
"""
SETTINGS = Path(__file__).resolve().parents[1] / "config" / "pose.yaml"


def objects(path: Path) -> str:
    specs = load_objects(path)
    assert all(s.scale > 0 and s.max_instances > 0 and s.name for s in specs)
    return f"{len(specs)} objects"


def settings(path: Path) -> str:
    load_yaml(path)
    return "settings"


@pytest.mark.parametrize(
    ("text", "read"), [(OBJECTS, objects), (SETTINGS.read_text(), settings)], ids=["objects", "settings"]
)
def test_mistakes_end_in_values_or_one_sentence(text, read, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    read(file)

    def damage(seed: int) -> str:
        if seed % 4:
            changed, what = mistyped(text, seed)
            file.write_text(changed)
        else:
            broken, what = damaged(text.encode(), seed)
            file.write_bytes(broken)
        return what

    try_seeds(read.__name__, PER_FILE, damage, lambda: read(file))
