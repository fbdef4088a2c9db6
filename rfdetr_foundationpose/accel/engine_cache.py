"""TensorRT engines on disk: found again only by what they were built for, written atomically, checked when read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

MAGIC = b"rfdetr-foundationpose engine 1\n"


def cache_directory() -> Path:
    """Where exported ONNX files and engines live: under $XDG_CACHE_HOME, by default ~/.cache; where that cannot be
    written (a service without a home), under the temporary directory."""
    wished = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        directory = wished.expanduser() / "rfdetr_foundationpose"
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.gettempdir()) / "rfdetr_foundationpose"


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on. shapes: "name=2x6x160x160" per input, sorted."""

    network: str
    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str
    precision: str
    onnx_sha256: str
    shapes: tuple[str, ...]

    @classmethod
    def make(
        cls,
        network: str,
        device: torch.device,
        tensorrt: str,
        precision: str,
        onnx_sha256: str,
        shapes: dict[str, tuple[int, ...]],
    ) -> EngineKey:
        """The key of an engine for ``device`` (CUDA)."""
        properties = torch.cuda.get_device_properties(device)
        return cls(
            network,
            properties.name,
            f"{properties.major}.{properties.minor}",
            driver_version(),
            tensorrt,
            precision,
            onnx_sha256,
            shape_strings(shapes),
        )

    @property
    def file_name(self) -> str:
        """One file per network, shapes, precision and GPU model, so that engines of several machines can share a disk."""
        shapes = hashlib.sha256("|".join(self.shapes).encode()).hexdigest()[:8]
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.gpu).strip("-")
        return (
            f"{self.network}-{self.precision}-{self.onnx_sha256[:8]}-{shapes}-{gpu}-sm{self.compute_capability}.engine"
        )

    def differences(self, found: EngineKey) -> str:
        """ "driver 550.54 → 570.86" for each field in which ``found`` is not this key."""
        pairs = ((f.name, getattr(found, f.name), getattr(self, f.name)) for f in dataclasses.fields(self))
        return ", ".join(f"{name} {old} → {new}" for name, old, new in pairs if old != new)


def shape_strings(shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """{"a": (2, 6)} -> ("a=2x6",), sorted by name."""
    return tuple(f"{name}={'x'.join(map(str, dims))}" for name, dims in sorted(shapes.items()))


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


class EngineCache:
    """Engine files in one directory. ``reason`` says why the last ``load`` found nothing usable."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache_directory() / "engines"
        self.reason = ""

    def load(self, key: EngineKey) -> bytes | None:
        """The engine built for exactly ``key``, or None: absent, built for something else, or damaged."""
        path = self.directory / key.file_name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self.reason = "not built yet"
            return None
        except OSError as error:
            self.reason = f"cannot be read ({error})"
            return None
        head, separator, rest = data.partition(b"\n\n")
        if not head.startswith(MAGIC) or not separator:
            self.reason = "the cached file is damaged (no header)"
            return None
        try:
            header = json.loads(head[len(MAGIC) :])
            found = EngineKey(**{**header["key"], "shapes": tuple(header["key"]["shapes"])})
            size, digest = header["size"], header["sha256"]
        except (ValueError, KeyError, TypeError):
            self.reason = "the cached file is damaged (header)"
            return None
        if found != key:
            self.reason = f"the cached one was built for another machine or network ({key.differences(found)})"
            return None
        if len(rest) != size or hashlib.sha256(rest).hexdigest() != digest:
            self.reason = f"the cached file is damaged ({len(rest)} of {size} bytes, checksum)"
            return None
        self.reason = ""
        return rest

    def store(self, key: EngineKey, engine: bytes) -> Path:
        """Write so that a reader sees the old file or the whole new one, also when the process is killed."""
        header = {"key": dataclasses.asdict(key), "size": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
        path = self.directory / key.file_name
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.directory, prefix=".building-")
        try:
            with os.fdopen(descriptor, "wb") as f:
                f.write(MAGIC + json.dumps(header).encode() + b"\n\n")
                f.write(engine)
                f.flush()
                os.fsync(f.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path

    def get_or_build(self, key: EngineKey, build: Callable[[], bytes]) -> bytes:
        """The cached engine, or a new one, with a line before and after. A cache that cannot be written costs a line."""
        engine = self.load(key)
        if engine is not None:
            return engine
        what = f"{key.network} {', '.join(key.shapes)} {key.precision}"
        logger.info("TensorRT engine %s: %s; building (minutes)", what, self.reason)
        begin = time.perf_counter()
        engine = build()
        try:
            path = self.store(key, engine)
            where = f"cached as {path.name}"
        except OSError as error:
            where = f"not cached: {error}"
        size, seconds = len(engine) / 1e6, time.perf_counter() - begin
        logger.info("TensorRT engine %s: %.1f MB in %.0f s, %s", key.network, size, seconds, where)
        return engine
