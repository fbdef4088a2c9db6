"""What slicers write into a 3MF beside the format: which parts of a mesh are printed, and in which filament.

PrusaSlicer and SuperSlicer put all volumes of an object into one mesh and say which triangles are which in
Metadata/Slic3r_PE_model.config; Bambu Studio and OrcaSlicer make a component of each and say it in Metadata/model_settings.config;
Cura says it in metadata of the objects.
Who reads the meshes alone takes modifiers and support blockers for parts of the object.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_VOLUMES = ("metadata/slic3r_pe_model.config", "metadata/model_settings.config")
_PRINTED = ("", "modelpart", "normal_part")
_CUTS = ("negativevolume", "negative_part")
_OF_CURA = ("cura:support_mesh", "cura:infill_mesh", "cura:cutting_mesh", "cura:anti_overhang_mesh")
_PAINT = ("paint_color", "mmu_segmentation")


@dataclass(frozen=True)
class Part:
    """Triangles of an object's mesh, all of them where ``last`` is below ``first``. kind: "" where it is printed. filament: counted
    from 1, 0 where none is named."""

    name: str
    kind: str
    first: int
    last: int
    filament: int


class Slicer:
    """read: the bytes of a file of the package by its name in small letters, None where there is none. notes: what to tell."""

    def __init__(self, read: Callable[[str], bytes | None], notes: list[str]) -> None:
        self._notes = notes
        self._parts: dict[tuple[str, str], list[Part]] = defaultdict(list)
        for name in _VOLUMES:
            data = read(name)
            if data is not None:
                self._take(data)
        self.colors = _filaments(read)

    @property
    def of_a_plate(self) -> bool:
        """Whether a slicer wrote the file, whose objects lie on a plate to be printed, not in their places."""
        return bool(self._parts)

    def _take(self, data: bytes) -> None:
        try:
            root = ET.fromstring(data)
        except ET.ParseError as error:
            self._notes.append(f"what the slicer says of its parts is damaged ({error}); all are taken for the object")
            return
        for thing in root.iter("object"):
            common = _values(thing)
            for part in (e for e in thing if e.tag in ("volume", "part")):
                own = _values(part)
                kind = part.get("subtype") or own.get("volume_type") or ""
                if not kind and own.get("modifier") == "1":  # as before PrusaSlicer 2.0
                    kind = "ParameterModifier"
                found = Part(
                    own.get("name", ""),
                    "" if kind.lower() in _PRINTED else kind,
                    _number(part.get("firstid"), 0),
                    _number(part.get("lastid"), -1),
                    _number(own.get("extruder"), 0) or _number(common.get("extruder"), 0),
                )
                self._parts[thing.get("id", ""), part.get("id", "")].append(found)

    def judge(self, item: str, thing: ET.Element, count: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(count,) which triangles of an object are printed, and their filaments, 0 where none is named. item: the object that
        the build or a component named, of which it is a part."""
        printed, filament, number = np.ones(count, bool), np.zeros(count, np.int64), thing.get("id", "")
        kind = next((e.get("name", "") for e in thing.iter() if _says_cura(e)), "")
        if kind:
            self._notes.append(f"its part {thing.get('name', '')!r} ({kind}) is not printed as it is, and is left out")
            return ~printed, filament
        for part in self._parts.get((item, number)) or self._parts.get((number, "")) or ():
            rows = slice(part.first, part.last + 1) if part.last >= part.first else slice(None)
            if not part.kind:
                filament[rows] = part.filament
                continue
            printed[rows] = False
            name = f"its part {part.name!r} ({part.kind} of the slicer)"
            self._notes.append(
                f"{name} is left out, and what it cuts away stays; cut it in the CAD program and export that"
                if part.kind.lower() in _CUTS
                else f"{name} is not printed, and is left out"
            )
        return printed, filament


def painted(triangles: Iterable[ET.Element], filament: NDArray[np.int64]) -> None:
    """Filaments of triangles that were painted, each in the one that covers most of it."""
    for i, triangle in enumerate(triangles):
        for key, value in triangle.attrib.items():
            if key.rpartition("}")[2] in _PAINT and (state := _most(value)):
                filament[i] = state


@lru_cache(maxsize=65536)
def _most(text: str) -> int:
    """The filament of most of a triangle: a tree of hexadecimal digits, last one first, whose two low bits say into how many
    more parts it is split; 0 where it is not painted."""
    try:
        digits = iter([int(digit, 16) for digit in reversed(text)])
    except ValueError:
        return 0
    share: dict[int, float] = defaultdict(float)
    open_ = [1.0]
    while open_:
        weight, digit = open_.pop(), next(digits, 0)
        parts = (digit & 3) + 1
        if parts > 1:
            open_ += [weight / parts] * parts
        else:
            share[digit >> 2 if digit >> 2 < 3 else 3 + next(digits, 0)] += weight
    return max(share, key=lambda state: share[state])


def _filaments(read: Callable[[str], bytes | None]) -> NDArray[np.float32]:
    """(n, 3) in [0, 1]."""
    names: list[str] = []
    bambu, prusa = read("metadata/project_settings.config"), read("metadata/slic3r_pe.config")
    if bambu is not None:
        try:
            names = [str(c) for c in json.loads(bambu).get("filament_colour", [])]
        except (ValueError, AttributeError, TypeError):
            names = []
    if not names and prusa is not None:
        text = prusa.decode("utf-8", "replace")
        for key in ("extruder_colour", "filament_colour"):
            found = re.search(rf"^;?\s*{key}\s*=\s*(.*)$", text, re.MULTILINE)
            names = [c.strip().strip('"') for c in found[1].split(";")] if found else []
            if any(names):
                break
    colors = [re.match(r"#([0-9a-fA-F]{6})", name) for name in names]
    return np.array([[int(c[1][i : i + 2], 16) / 255 if c else 0.5 for i in (0, 2, 4)] for c in colors], np.float32)


def _says_cura(element: ET.Element) -> bool:
    return element.get("name") in _OF_CURA and (element.text or "").strip().lower() in ("true", "1")


def _values(element: ET.Element) -> dict[str, str]:
    return {e.get("key", ""): e.get("value", "") for e in element if e.tag == "metadata"}


def _number(text: str | None, rest: int) -> int:
    try:
        return int(text or "")
    except ValueError:
        return rest
