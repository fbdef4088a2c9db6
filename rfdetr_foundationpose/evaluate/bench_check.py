"""``bench --check``: whether a backend runs on this machine and gives the poses and scores of FP32 eager, for cards that we have
not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from scipy.stats import kendalltau
from torch import Tensor

from ..accel.base import BackendUnavailable
from ..backends import POSE
from ..config import Config
from ..engines.engine_folder import driver_version
from ..engines.engine_provider import usable_library
from ..engines.options import engine_options
from ..errors import one_line
from ..latency import percentile
from ..pose.example_crops import Crops, hypothesis_crops
from ..pose.example_scene import ExampleScene
from ..pose.mesh import ObjectModel
from ..tables import plain_table
from .bench_report import environment
from .bench_rows import EstimatorRow
from .bench_timing import timed
from .compare import MAX_DEG, MAX_MM
from .export_check import MIN_TAU, reference_outputs
from .networks import LoadedNetworks
from .validate_pose import Comparison, Tap, View

KEEP_ENGINES = ("tensorrt",)
"""These leave files for their next start, which is therefore timed too."""


@dataclass(frozen=True)
class Checked:
    """start_s, again_s: seconds of the first start and of one after it, None where nothing is kept for that. track_ms: median.
    result: of a Comparison, empty where the backend does not run. tau: Kendall's, of the worst scene; NaN where scores have no
    order. reasons: why it fails; none where it agrees."""

    backend: str
    library: str
    reasons: tuple[str, ...]
    start_s: float = math.nan
    again_s: float | None = None
    track_ms: float = math.nan
    result: Mapping[str, Any] | None = None
    tau: float = math.nan


@dataclass(frozen=True)
class CheckSettings:
    """size: (height, width). frames: tracked, registered every tenth. scenes: whose 252 hypotheses are scored."""

    size: tuple[int, int]
    frames: int
    scenes: int
    seed: int = 0


def refuse(backends: Sequence[str], device: torch.device, config: Config) -> None:
    """Raises BackendUnavailable, one sentence, where this machine is none that a backend could run on."""
    for name in backends:
        try:
            if name == "tensorrt":
                usable_library(device, engine_options(config))
            elif POSE.get(name).graph and device.type != "cuda":
                raise BackendUnavailable("it needs a CUDA device")
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{name} cannot be checked on this machine: {error}") from error


def machine_lines(device: torch.device) -> list[str]:
    """What a reader of the result must know: hardware, driver, versions."""
    about = environment(device)
    libraries = {k: about[k] for k in ("torch", "warp-lang", "onnxruntime", "onnxruntime-gpu", "tensorrt")}
    libraries |= {k: about[k] for k in ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12")}
    versions = ", ".join(f"{name} {found}" for name, found in libraries.items() if found)
    if device.type != "cuda":
        return [
            f"machine: {about['cpu']} CPU ({about['cpu_capability']}), {about['threads']} threads",
            f"software: {versions}",
        ]
    card = f"{about['gpu']} (compute capability {about['compute_capability']}, {about['gpu_memory_gb']} GB)"
    return [
        f"machine: {card}, driver {driver_version()}",
        f"software: python {about['python']}, CUDA {about['cuda']}, cuDNN {about['cudnn']}, {versions}",
    ]


class BackendCheck:
    """Holds backends to one FP32 reference. Raises BackendUnavailable, MeshError."""

    def __init__(
        self,
        models: Sequence[ObjectModel],
        networks: LoadedNetworks,
        config: Config,
        device: torch.device,
        settings: CheckSettings,
    ) -> None:
        self._models, self._networks, self._config, self._device = models, networks, config, device
        self._settings = settings
        scene = ExampleScene(models, settings.size, device, settings.seed)
        self.camera = scene.camera
        self._frames = [scene.frame(i) for i in range(settings.frames)]
        self._reference = EstimatorRow("eager", models, networks, config, device, Tap)
        self._crops: list[tuple[Crops, Tensor]] = []
        for i in range(settings.scenes):
            found = hypothesis_crops(i, "scorer")
            crops = Crops(found.name, found.rendered.to(device), found.observed.to(device))
            self._crops.append((crops, reference_outputs(networks.modules["scorer"].to(device), crops)[0]))

    def __call__(self, backend: str, progress: Callable[[], None] = lambda: None) -> Checked:
        """Never raises for what the backend does wrong; progress: called after each frame."""
        try:
            begin = time.perf_counter()
            row = self._start(backend)
            start, again = time.perf_counter() - begin, None
            if backend in KEEP_ENGINES:
                begin = time.perf_counter()
                row = self._start(backend)
                again = time.perf_counter() - begin
            return self._compare(backend, row, start, again, progress)
        except RuntimeError as error:  # unavailable, out of memory, an engine that the card refuses
            return Checked(backend, "", (one_line(error),))

    def _start(self, backend: str) -> EstimatorRow:
        row = EstimatorRow(backend, self._models, self._networks, self._config, self._device)
        row.warm_up(self.camera)
        return row

    def _compare(
        self, backend: str, row: EstimatorRow, start: float, again: float | None, progress: Callable[[], None]
    ) -> Checked:
        comparison = Comparison(self._reference, row, self._config)
        names = {m.name: m.name for m in self._models}
        for i, shown in enumerate(self._frames):
            comparison.feed(View(shown.frame, names, i > 0), register_again=i % 10 == 0)
            progress()
        result = comparison.result(MAX_MM, MAX_DEG)
        track = []
        for i, shown in enumerate(self._frames):
            last = self._frames[max(i - 1, 0)].truths
            track.append(timed(partial(row.track, shown.frame, last), self._device)[0])
        tau, reasons = self._ranked(row)
        library = row.estimator.library
        found = (*result["reasons"], *reasons)
        return Checked(backend, library, found, start, again, percentile(sorted(track), 50), result, tau)

    def _ranked(self, row: EstimatorRow) -> tuple[float, list[str]]:
        """Kendall's tau of the scorer in the worst scene, and what is wrong with its scores."""
        worst, reasons = math.nan, []
        for crops, expected in self._crops:
            (found,) = row.estimator._networks.scorer(crops.rendered, crops.observed)
            if lost := int((~found.isfinite()).sum()):
                reasons.append(f"{lost} of {found.numel()} scores are not finite ({crops.name})")
                continue
            if float(expected.max() - expected.min()) <= 1e-5 * float(expected.abs().max()):
                continue  # random weights rank nothing
            tau = float(kendalltau(expected.cpu().numpy(), found.cpu().numpy()).statistic)
            worst = tau if math.isnan(worst) else min(worst, tau)
            if not tau >= MIN_TAU:
                reasons.append(f"the order of 252 scores has tau {tau:.3f}, at least {MIN_TAU} ({crops.name})")
        return worst, reasons


def check_table(checked: Sequence[Checked], title: str) -> Table:
    """A row for each backend that ran."""
    columns = ("backend", "start s", "again s", "track ms", "mm p95", "deg p95", "tau", "verdict")
    table = plain_table(title, *columns)
    for c in checked:
        if c.result is None:
            table.add_row(c.backend, *[""] * 6, "does not run")
            continue
        track = c.result["track"]
        apart = [f"{track[unit]['p95']:.3f}" for unit in ("mm", "deg")] if track["count"] else ["", ""]
        again = "" if c.again_s is None else f"{c.again_s:.1f}"
        tau = "" if math.isnan(c.tau) else f"{c.tau:.4f}"
        verdict = "differs" if c.reasons else "agrees"
        table.add_row(c.backend, f"{c.start_s:.1f}", again, f"{c.track_ms:.2f}", *apart, tau, verdict)
    return table
