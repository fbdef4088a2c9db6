"""Engines of one network on one GPU: from a folder that was given, from the cache, or built here; each way is said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..accel.base import BackendUnavailable, EngineOptions
from ..resources import cache_directory
from .engine_folder import EngineFolder, EngineKey, Machine, driver_version
from .onnx_file import ImageSpec, OnnxSpec
from .tensorrt_build import build_engine
from .tensorrt_library import Library, choose_library, gpu_target
from .tensorrt_program import EngineProgram

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSource:
    """What engines of a network are built from.

    role: "refiner", "scorer" or "detector". digest: of weights and of how they are exported. onnx: gives the model for a
    precision, exported when it is first asked for. about: the weights, for people.
    """

    role: str
    digest: str
    spec: OnnxSpec | ImageSpec
    onnx: Callable[[str], Path]
    about: str = ""

    def key(self, batch: int, precision: str) -> EngineKey:
        shape = self.spec.input_shape(batch)
        return EngineKey(self.role, self.digest, precision, dict.fromkeys(self.spec.inputs, shape))

    def build(self, batch: int, precision: str, library: Library, targets: list[str]) -> bytes:
        """A serialized engine. targets: () for the GPU at hand. Raises BackendUnavailable."""
        return build_engine(
            self.onnx(precision).read_bytes(),
            self.key(batch, precision).shapes,
            precision,
            library,
            targets=targets,
            role=self.role,
            fixed=self.spec.batch is not None,
        )


def usable_library(device: torch.device, options: EngineOptions) -> Library:
    """The TensorRT that runs on ``device``. Raises BackendUnavailable with the reason why there is none."""
    if device.type != "cuda":
        raise BackendUnavailable("TensorRT needs a CUDA device")
    return choose_library(options.library, gpu_target(device))


def machine_at(library: Library, device: torch.device) -> Machine:
    """What an engine must be for to run on ``device``."""
    target = gpu_target(device)
    if library.builds_anywhere:
        return Machine(library.name, library.version, target)
    return Machine(library.name, library.version, target, torch.cuda.get_device_name(device), driver_version())


class EngineProvider:
    """about: the library and why it was taken. Raises BackendUnavailable where no TensorRT runs on ``device``."""

    def __init__(
        self, source: EngineSource, device: torch.device, label: str, options: EngineOptions, precision: str = "fp16"
    ) -> None:
        self._library = usable_library(device, options)
        self._source, self._device, self._label, self._precision = source, device, label, precision
        self._machine = machine_at(self._library, device)
        self._cache = EngineFolder((options.cache or cache_directory()) / "engines")
        self._folders = [*([EngineFolder(options.folder)] if options.folder else []), self._cache]
        self.about = f"{self._library.title} ({self._library.why})"
        logger.info("%s: %s", label, self.about)

    def program(self, batch: int) -> EngineProgram:
        """An engine for a batch, ready to run. Raises BackendUnavailable."""
        key = self._source.key(batch, self._precision)
        for folder in self._folders:
            found = folder.load(key, self._machine)
            if found is None:
                level = logging.INFO if folder is self._cache else logging.WARNING
                logger.log(level, "%s: engines in %s: %s", self._label, folder.directory, folder.reason)
                continue
            entry, engine = found
            try:
                return self._load(folder, entry.file, engine, key)
            except BackendUnavailable as error:
                logger.warning("%s: %s: %s", self._label, entry.file, error)
        return self._build(key)

    def _load(self, folder: EngineFolder, file: str, engine: bytes, key: EngineKey) -> EngineProgram:
        kernels = folder.directory / f"{Path(file).stem}.{self._machine.target}.kernels"
        outputs = self._source.spec.outputs
        return EngineProgram(self._library, engine, key.shapes, outputs, self._device, self._label, kernels)

    def _build(self, key: EngineKey) -> EngineProgram:
        """With a line before and after. A cache that cannot be written costs a line."""
        logger.info("%s: %s builds batch %d (seconds to minutes)", self._label, self._library.title, key.batch)
        begin = time.perf_counter()
        targets = [self._machine.target] if self._library.builds_anywhere else []
        engine = self._source.build(key.batch, self._precision, self._library, targets)
        seconds = time.perf_counter() - begin
        file = f"{key.role}_b{key.batch}"
        try:
            about = self._source.about
            file = self._cache.store(key, self._machine, [self._machine.target], engine, seconds, about).file
            where = f"kept as {file}"
        except OSError as error:
            where = f"not kept: {error}"
        logger.info("%s: engine of %.1f MB in %.0f s, %s", self._label, len(engine) / 1e6, seconds, where)
        return self._load(self._cache, file, engine, key)
