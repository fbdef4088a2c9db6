"""What the node needs of a pipeline, and how it makes the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..config import Config
from ..latency import StageTimer
from ..types import CameraIntrinsics, Frame, Image

if TYPE_CHECKING:
    from ..detect.starts import Start
    from ..pipeline import FrameResult, PipelineStatus


class PosePipeline(Protocol):
    """What the node needs of a pipeline; ``Pipeline`` is it."""

    timer: StageTimer

    def warm_up(self, camera: CameraIntrinsics) -> None: ...
    def upload_early(
        self, *, rgb: Image | None = None, depth: Image | None = None, depth_scale: float = 1.0
    ) -> None: ...  # called where the device is a GPU
    def process(self, frame: Frame) -> FrameResult: ...
    def reset(self) -> None: ...
    def start_at(self, start: Start) -> None: ...
    def apply(self, config: Config) -> None: ...
    def status(self) -> PipelineStatus: ...
    def close(self) -> None: ...


PipelineFactory = Callable[[Config], PosePipeline]


def real_pipeline(config: Config) -> PosePipeline:
    """The pipeline from settings. Imported at configure: it brings seconds of libraries, and the node answers before."""
    from ..pipeline import Pipeline

    return Pipeline.build(config)
