"""A folder of TensorRT engines with a manifest: what each was built from and for, found again only by that.

A folder can be given to a robot (pose.engines); the user's cache is one too. Files appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..resources import remove_unfinished, write_whole

MANIFEST = "engines.json"
FORMAT = 1


class ManifestError(UserError, ValueError):
    """A manifest that cannot be read."""


@dataclass(frozen=True)
class Machine:
    """What an engine is for. library, version: of TensorRT. target: "sm_89". gpu, driver: "" for engines that are compiled on
    the GPU they run on (TensorRT for RTX)."""

    library: str
    version: str
    target: str
    gpu: str = ""
    driver: str = ""


@dataclass(frozen=True)
class EngineKey:
    """What an engine is built from. role: "refiner", "scorer" or "detector". network: digest of weights and of how they are
    exported. shapes: of each input."""

    role: str
    network: str
    precision: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def batch(self) -> int:
        return next(iter(self.shapes.values()))[0]

    def __str__(self) -> str:
        return f"{self.role} batch {self.batch} {self.precision}"


@dataclass(frozen=True)
class Entry:
    """An engine of the manifest. targets: GPUs that it is for; gpu, driver: see Machine. about: the weights, for people."""

    file: str
    role: str
    network: str
    precision: str
    shapes: dict[str, list[int]]
    library: str
    version: str
    targets: list[str]
    bytes: int
    sha256: str
    seconds: float
    about: str = ""
    gpu: str = ""
    driver: str = ""

    def is_of(self, key: EngineKey) -> bool:
        """Whether it was built from what ``key`` says."""
        shapes = {name: list(shape) for name, shape in key.shapes.items()}
        found = (self.role, self.network, self.precision, self.shapes)
        return found == (key.role, key.network, key.precision, shapes)

    def misfit(self, machine: Machine) -> str:
        """Why it cannot run there, "" where it can."""
        pairs = [("library", self.library, machine.library), ("version", self.version, machine.version)]
        if machine.target not in self.targets:
            pairs.append(("GPU", ", ".join(self.targets), machine.target))
        pairs += [("GPU", self.gpu, machine.gpu), ("driver", self.driver, machine.driver)]
        return ", ".join(f"{name} {old} → {new}" for name, old, new in pairs if old != new)


class EngineFolder:
    """Engines in one directory, which need not exist yet. reason: why the last ``load`` found nothing usable."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reason = ""

    def entries(self) -> list[Entry]:
        """Of the manifest, [] where there is none. Raises ManifestError for a damaged one."""
        path = self.directory / MANIFEST
        try:
            tree = json.loads(path.read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise ManifestError(f"{path} cannot be read ({error}); delete it, or name another folder") from error
        try:
            if tree["format"] != FORMAT:
                raise ManifestError(f"{path} has format {tree['format']}, {FORMAT} is known; build the engines anew")
            return [Entry(**entry) for entry in tree["engines"]]
        except (KeyError, TypeError) as error:
            raise ManifestError(
                f"{path} is no manifest of engines ({error!r}); delete it, or name another folder"
            ) from error

    def find(self, key: EngineKey, machine: Machine) -> Entry | None:
        """The entry that fits. Raises ManifestError."""
        entries = self.entries()
        right = [e for e in entries if e.is_of(key)]
        for entry in right:
            if not entry.misfit(machine):
                return entry
        self.reason = self._why_not(entries, right, key, machine)
        return None

    def load(self, key: EngineKey, machine: Machine) -> tuple[Entry, bytes] | None:
        """The engine that fits, whole; None where there is none, and ``reason`` says why."""
        try:
            entry = self.find(key, machine)
        except ManifestError as error:
            self.reason = str(error)
            return None
        if entry is None:
            return None
        try:
            data = (self.directory / entry.file).read_bytes()
        except OSError as error:
            self.reason = f"{entry.file} cannot be read ({error})"
            return None
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            self.reason = f"{entry.file} is damaged ({len(data)} of {entry.bytes} bytes, or its checksum)"
            return None
        self.reason = ""
        return entry, data

    def _why_not(self, entries: list[Entry], right: list[Entry], key: EngineKey, machine: Machine) -> str:
        if right:
            return f"{key} was built for another machine ({right[-1].misfit(machine)})"
        same_role = [e for e in entries if e.role == key.role]
        if not same_role:
            return f"{key} is not built yet"
        if all(e.network != key.network for e in same_role):
            others = ", ".join(sorted({e.about or e.network[:8] for e in same_role}))
            return f"its engines of the {key.role} are of other weights ({others})"
        return f"{key} is not among its engines"

    def store(
        self, key: EngineKey, machine: Machine, targets: list[str], engine: bytes, seconds: float, about: str
    ) -> Entry:
        """Write an engine, then the manifest that names it. Raises OSError where that is not possible, ManifestError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        name = _file_name(key, machine, targets)
        shapes = {n: list(s) for n, s in key.shapes.items()}
        digest = hashlib.sha256(engine).hexdigest()
        what = (key.role, key.network, key.precision, shapes, machine.library, machine.version, targets)
        entry = Entry(name, *what, len(engine), digest, round(seconds, 1), about, machine.gpu, machine.driver)
        with self._locked():
            others = [e for e in self.entries() if e.file != name]
            remove_unfinished(self.directory)
            write_whole(self.directory / name, engine)
            tree = {"format": FORMAT, "engines": [dataclasses.asdict(e) for e in [*others, entry]]}
            write_whole(self.directory / MANIFEST, (json.dumps(tree, indent=1) + "\n").encode())
        return entry

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time adds to the manifest."""
        with (self.directory / ".lock").open("w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield

    def forget(self, entry: Entry) -> None:
        """Take an engine out of the manifest, and away."""
        with self._locked():
            others = [e for e in self.entries() if e.file != entry.file]
            tree: dict[str, Any] = {"format": FORMAT, "engines": [dataclasses.asdict(e) for e in others]}
            write_whole(self.directory / MANIFEST, (json.dumps(tree, indent=1) + "\n").encode())
            (self.directory / entry.file).unlink(missing_ok=True)


def _file_name(key: EngineKey, machine: Machine, targets: list[str]) -> str:
    """One file for each key, library and machine, so that engines of several machines can share a folder."""
    shapes = "|".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in key.shapes.items())
    unique = hashlib.sha256(f"{key.network}|{shapes}|{machine}|{targets}".encode()).hexdigest()[:8]
    where = re.sub(r"[^A-Za-z0-9]+", "-", machine.gpu).strip("-") or "+".join(targets)
    return f"{key.role}_b{key.batch}_{key.precision}_{machine.library}_{where}_{unique}.engine"


def driver_version() -> str:
    """NVIDIA driver version where the kernel module tells it, else the CUDA version that the driver supports."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    found = re.search(r"Kernel Module\D*?([0-9]+(?:\.[0-9]+)+)", text)
    if found:
        return found.group(1)
    read = getattr(torch._C, "_cuda_getDriverVersion", None)
    return f"cuda-{read()}" if read and torch.cuda.is_available() else "unknown"
