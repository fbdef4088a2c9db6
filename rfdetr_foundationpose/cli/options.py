"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..objects import ObjectSpec

LARGEST_SEED = 2**31 - 1
LARGEST_BATCH = 4096
MOST_RECORDINGS = 10_000
SECONDS = 10.0
"""A generated recording lasts so many seconds."""
RATE = 15.0
"""A generated recording has so many frames a second."""
TARGETS = ("mug", "drill")
"""One of these objects is moved by hand, the other one stands. On a CPU every further object costs seconds of registration, and
one that is known but not in view costs a detector run on every frame."""

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.")]
PoseWeights = Annotated[str, typer.Option("--weights", help="Value of pose.weights: 'default', 'base' or a directory.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, e.g. pose.register_schedule=full; may be repeated.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Where the figures go; default: result.json in --out.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The same seed gives the same data.")]
Size = Annotated[str, typer.Option(help="Image size, WIDTHxHEIGHT in pixels.")]
ObjectsFile = Annotated[Path | None, typer.Option("--objects-file", help="objects.yaml; default: the demo's objects.")]
ObjectsFileOrRandom = Annotated[
    Path | None, typer.Option("--objects-file", help="objects.yaml; default: random objects that no training used.")
]
RandomObjects = Annotated[
    int, typer.Option("--random-objects", min=1, max=1000, help="How many random ones, without --objects-file.")
]
Objects = Annotated[
    str,
    typer.Option(
        "--objects", help="Names in the objects file, separated by commas; name one twice for two of it; default: all."
    ),
]
Tracked = Annotated[
    int, typer.Option(min=1, max=4, help="How many objects are tracked together; the smallest ones are taken.")
]
Out = Annotated[Path, typer.Option(help="Folder of outputs.")]
Seeds = Annotated[str, typer.Option(help="Seeds of the recordings, e.g. 100..109 or 3,5; training saw none of them.")]
Targets = Annotated[
    str,
    typer.Option(
        help="Objects on the table, separated by commas; name one twice for two of it; all: every object once."
    ),
]
MinRecall = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Exit with 1 for a recall below this.")]
MaxFalseTracks = Annotated[int | None, typer.Option(min=0, help="Exit with 1 for more false tracks than this.")]
OfficialSize = Annotated[
    bool, typer.Option("--official-size", help="Networks of the official size, with random weights.")
]


def parse_size(text: str) -> tuple[int, int]:
    """ "640x480" -> (480, 640). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"size {text!r} must be WIDTHxHEIGHT, e.g. 640x480")
    width, height = int(match[1]), int(match[2])
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise typer.BadParameter(f"size {text!r} must be between 16x16 and 8192x8192 pixels")
    return height, width


def parse_names(text: str) -> tuple[str, ...]:
    """ "mug, drill" -> ("mug", "drill")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def named(specs: Sequence[ObjectSpec], text: str) -> list[ObjectSpec]:
    """Those of ``specs`` that --objects names, in their order there; all for an empty text. Raises ConfigError."""
    wanted = parse_names(text)
    known = [s.name for s in specs]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--objects: {name!r} is not in the objects file, which has {', '.join(known)}")
    return [s for s in specs if not wanted or s.name in wanted]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of "100..109", "3,5" or both mixed. Raises typer.BadParameter."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:\.\.([0-9]{1,10}))?\s*", part)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if not first <= last <= LARGEST_SEED:
            raise typer.BadParameter(f"--seeds={text} must be numbers or ranges, e.g. 100..109 or 3,5")
        if last - first + len(found) >= MOST_RECORDINGS:
            raise typer.BadParameter(
                f"--seeds={text} are more than {MOST_RECORDINGS}; each is a recording of ten seconds"
            )
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def parse_targets(text: str, specs: Sequence[ObjectSpec]) -> tuple[str, ...]:
    """Names of "mug,drill", or of all objects for "all". Raises ConfigError for one that is not among ``specs``."""
    listed = [s.name for s in specs]
    names = tuple(listed) if text == "all" else tuple(t.strip() for t in text.split(","))
    if unknown := sorted(set(names) - set(listed)):
        raise ConfigError(f"--targets: {', '.join(unknown)} not in the objects file, which has {', '.join(listed)}")
    return names


def parse_choices(text: str, known: Sequence[str], option: str, also: Sequence[str] = ()) -> list[str]:
    """Names that are all among ``known``, none twice. also: what else the option takes. Raises typer.BadParameter."""
    found = list(dict.fromkeys(parse_names(text)))
    if unknown := [name for name in found if name not in known]:
        raise typer.BadParameter(f"{option}: {', '.join(unknown)} is none of {', '.join([*known, *also])}")
    return found


def whole_numbers(text: str, low: int, high: int) -> list[int]:
    """Ascending, none twice: "1,2,4" -> [1, 2, 4]; empty where one is no whole number from ``low`` to ``high``."""
    parts = parse_names(text)
    fits = all(re.fullmatch(r"[0-9]{1,9}", p) and low <= int(p) <= high for p in parts)
    return sorted({int(p) for p in parts}) if fits else []


def parse_numbers(text: str, option: str) -> list[int]:
    """Batch sizes, as ``whole_numbers`` gives them. Raises typer.BadParameter."""
    found = whole_numbers(text, 1, LARGEST_BATCH)
    if not found:
        raise typer.BadParameter(
            f"{option}={text} must be numbers from 1 to {LARGEST_BATCH}, with commas, e.g. 1,2,4,252"
        )
    return found
