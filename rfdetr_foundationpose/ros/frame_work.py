"""What the worker's thread does with a pair of images: a frame, its poses, their messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..config import Config
from ..latency import StageTimer
from ..types import InputError
from .inputs import Inputs
from .pipeline import PosePipeline
from .publishers import Outputs
from .state import NodeState
from .telemetry import Telemetry
from .warm_up import WarmUp
from .worker import EarlyImage, Pair, check_age


class FrameWork:
    """Of one configured node. timer: gets the stages "convert", "publish" and "end_to_end". config: asked for every frame.

    age: seconds between the stamp of the newest pair and its arrival at the worker; None before the first.
    """

    def __init__(
        self,
        node: Any,
        state: NodeState,
        config: Callable[[], Config],
        inputs: Inputs,
        warm_up: WarmUp,
        pipeline: PosePipeline,
        outputs: Outputs,
        telemetry: Telemetry,
        timer: StageTimer,
    ) -> None:
        self._clock = node.get_clock()
        self._logger = node.get_logger()
        self._state = state
        self._config = config
        self._inputs = inputs
        self._warm_up = warm_up
        self._pipeline = pipeline
        self._outputs = outputs
        self._telemetry = telemetry
        self._timer = timer
        self.age: float | None = None

    def handle(self, pair: Pair) -> None:
        """Publish the poses of a pair. Raises InputError for one that is to be skipped."""
        config = self._config()
        if not self._state.enabled:
            raise InputError("disabled", "disabled by ~/set_enabled")
        self.age = self._age_of(pair)
        check_age(self.age, config.input.max_age)
        with ExitStack() as leases:
            with self._timer.stage("convert", on_device=False):
                frame = self._inputs.assemble(pair, leases)
            self._warm_up.follow(frame)
            result = self._pipeline.process(frame)
            with self._timer.stage("publish", on_device=False):
                self._outputs.publish(result, config.output)
            self._timer.add("end_to_end", self._age_of(pair) * 1e3)
            self._telemetry.offer(result)
        for event in result.events:
            self._logger.info(event)

    def handle_early(self, image: EarlyImage) -> None:
        """Convert and upload it while its partner is on its way. What will be refused is left alone. Raises InputError."""
        check_age(self._age_of(image), self._config().input.max_age)
        if self._state.enabled and self._warm_up.is_for(image.message.width, image.message.height):
            self.upload_early(image)

    def upload_early(self, image: EarlyImage) -> None:
        """As ``handle_early``, of one that is wanted."""
        self._pipeline.upload_early(**self._inputs.convert_early(image))

    def _age_of(self, taken: Pair | EarlyImage) -> float:
        return float(self._clock.now().nanoseconds - taken.stamp_ns) / 1e9
