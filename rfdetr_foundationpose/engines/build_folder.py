"""``build-engines``: engines of several networks into one folder, those that fit already kept."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .engine_folder import EngineFolder, EngineKey, Machine
from .engine_provider import EngineSource
from .tensorrt_library import Library


class EngineBuildError(UserError, RuntimeError):
    """Engines that cannot be built or written."""


@dataclass(frozen=True)
class Wanted:
    """An engine that a folder is to have."""

    source: EngineSource
    batch: int
    precision: str

    @property
    def key(self) -> EngineKey:
        return self.source.key(self.batch, self.precision)


@dataclass(frozen=True)
class Built:
    """What became of one. file: in the folder. seconds: of building, 0 where it was kept."""

    key: EngineKey
    file: str
    megabytes: float
    targets: tuple[str, ...]
    seconds: float


def parse_targets(text: str, library: Library) -> list[str]:
    """ "sm_89, 12.0" -> ["sm_89", "sm_120"]. Raises EngineBuildError for what the library has no engines for."""
    found = []
    for part in (p.strip().lower() for p in text.split(",") if p.strip()):
        target = part if part.startswith("sm_") else "sm_" + part.removeprefix("sm").replace(".", "")
        if target not in library.targets:
            what = f"targets are {', '.join(library.targets)}"
            raise EngineBuildError(f"--target {part}: {library.title} has no engines for it; its {what}")
        found.append(target)
    return list(dict.fromkeys(found))


def build_folder(
    directory: Path,
    wanted: Sequence[Wanted],
    library: Library,
    machine: Machine,
    targets: Sequence[str],
    progress: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Engines for every target in ``directory``. One file serves all targets that are missing: what they add is 1 % of it.

    machine: its target is not looked at. Raises EngineBuildError, ManifestError, BackendUnavailable.
    """
    folder = EngineFolder(directory)
    done = []
    for item in wanted:
        for built in _one(folder, item, library, machine, targets):
            done.append(built)
            if progress is not None:
                progress(built)
    return done


def is_complete(directory: Path, wanted: Sequence[Wanted], machine: Machine, targets: Sequence[str]) -> bool:
    """Whether a folder has all of them already. Raises ManifestError."""
    folder = EngineFolder(directory)
    return all(folder.find(w.key, _at(machine, target)) is not None for w in wanted for target in targets)


def _at(machine: Machine, target: str) -> Machine:
    return dataclasses.replace(machine, target=target)


def _one(
    folder: EngineFolder, item: Wanted, library: Library, machine: Machine, targets: Sequence[str]
) -> Iterator[Built]:
    missing = []
    kept: dict[str, Built] = {}
    for target in targets:
        found = folder.load(item.key, _at(machine, target))
        if found is None:
            missing.append(target)
        else:
            entry, engine = found
            kept[entry.file] = Built(item.key, entry.file, len(engine) / 1e6, tuple(entry.targets), 0.0)
    yield from kept.values()
    if not missing:
        return
    begin = time.perf_counter()
    engine = item.source.build(item.batch, item.precision, library, missing if library.builds_anywhere else [])
    seconds = time.perf_counter() - begin
    try:
        entry = folder.store(item.key, machine, missing, engine, seconds, item.source.about)
    except OSError as error:
        free = _free_megabytes(folder.directory)
        raise EngineBuildError(
            f"the engine of {item.key}, {len(engine) / 1e6:.0f} MB, cannot be written to {folder.directory}: "
            f"{error.strerror or error}{free}; what was built before is kept"
        ) from error
    yield Built(item.key, entry.file, len(engine) / 1e6, tuple(missing), seconds)


def _free_megabytes(directory: Path) -> str:
    try:
        return f" ({shutil.disk_usage(directory).free / 1e6:.0f} MB are free)"
    except OSError:
        return ""
