"""Facts of the running node at one moment, gathered for diagnostics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..latency import StageStats, StageTimer
from ..objects import ObjectSpec
from .inputs import Inputs
from .pipeline import PosePipeline
from .reporting import Reporter
from .state import NodeState
from .worker import LatestFrame, Tally, Worker

if TYPE_CHECKING:
    from ..pipeline import PipelineStatus


@dataclass(frozen=True)
class Health:
    """What is known of the node at one moment. rates in Hz (rate: pairs that come, processed_rate: those processed), times in seconds; ``since`` is the time since activation.

    age: seconds between the newest processed image's stamp and its arrival at the worker; None before the first.
    depth_frame: frame of the depth image where it differs from the colour image's. nameless: whether nothing names the colour image's.
    distorted: frames taken with the lens's
    distortion; distortion: what to do about it. conflict: what is wrong where two cameras publish on one topic. reliability,
    remedy: of the images, and what helps where they get lost on the way.
    errors, error_counts: last message and number of each kind of drop or error. debug_dropped: debug frames not drawn because a newer one came.
    """

    node: str
    state: str
    failure: str = ""
    enabled: bool = True
    hardware_id: str = ""
    since: float = 0.0
    tally: Tally = field(default_factory=lambda: Tally(0, 0, 0, {}))
    images: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.0
    processed_rate: float = 0.0
    silence: float | None = None
    age: float | None = None
    depth_frame: str = ""
    nameless: bool = False
    distortion: str = ""
    distorted: int = 0
    has_camera: bool = True
    conflict: str = ""
    reliability: str = ""
    remedy: str = ""
    busy_for: float = 0.0
    min_rate: float = 0.0
    sync: str = "exact"
    transport: str = "raw"
    status: PipelineStatus | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, StageStats] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    error_counts: Mapping[str, int] = field(default_factory=dict)
    waiting_for_clock: bool = False
    missing: tuple[str, ...] = ()
    debug_dropped: int = 0


def latency(pipeline: PosePipeline | None, timer: StageTimer) -> dict[str, StageStats]:
    """Of all stages: the pipeline's, where there is one, and the node's own."""
    return {**(pipeline.timer.stats() if pipeline is not None else {}), **timer.stats()}


def gather(
    node: Any,
    state: NodeState,
    config: Config,
    latest: LatestFrame,
    worker: Worker,
    report: Reporter,
    timer: StageTimer,
    *,
    inputs: Inputs | None,
    pipeline: PosePipeline | None,
    specs: Sequence[ObjectSpec],
    hardware_id: str,
    age: float | None,
    missing: tuple[str, ...],
    debug_dropped: int,
) -> Health:
    """inputs, pipeline: of what is configured now, None where nothing is. The rest as in ``Health``. For any thread."""
    now = time.monotonic()
    errors, counts = report.snapshot()
    return Health(
        node=node.get_fully_qualified_name().lstrip("/"),
        state=state.label,
        failure=state.failure,
        enabled=state.enabled,
        hardware_id=hardware_id,
        since=now - state.since,
        tally=latest.tally(),
        **(inputs.health() if inputs is not None else {"has_camera": False}),
        rate=latest.rate(now),
        processed_rate=latest.processed_rate(now),
        silence=latest.silence(now),
        age=age,
        busy_for=worker.busy_for(),
        min_rate=config.debug.min_input_rate,
        sync=config.input.sync,
        transport=config.input.image_transport,
        status=pipeline.status() if pipeline is not None else None,
        thresholds={s.name: config.detector.threshold if s.threshold is None else s.threshold for s in specs},
        latency=latency(pipeline, timer),
        errors=errors,
        error_counts=counts,
        waiting_for_clock=node.get_clock().now().nanoseconds == 0,
        missing=missing,
        debug_dropped=debug_dropped,
    )
