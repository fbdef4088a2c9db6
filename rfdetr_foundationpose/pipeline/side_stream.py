"""The detector beside the tracker: on CUDA it works on a stream of its own while the frame is tracked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..detect.detector import OverlappingDetector
from ..latency import StageTimer

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport, Detector
    from ..device_frame import DeviceFrame


class SideStream:
    """Where detections are made. overlap: on a second stream, on CUDA and if the detector can be left to work."""

    def __init__(self, device: torch.device, timer: StageTimer, *, overlap: bool = True) -> None:
        self._device = device
        self._timer = timer
        self._stream = torch.cuda.Stream(device) if overlap and device.type == "cuda" else None

    def start(self, detector: Detector, frame: DeviceFrame) -> Callable[[], DetectionReport]:
        """Begin with a frame whose upload is enqueued on the current stream; the returned function waits for the report.

        Without overlap the work is done when this returns. The returned function is to be called before the next start;
        masks are on the stream that is current then.
        """
        if self._stream is None or not isinstance(detector, OverlappingDetector):
            with self._timer.stage("detector"):
                report = detector.detect(frame)
            return lambda: report
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream), self._timer.stage("detector"):
            finish = detector.start(frame)

        def collect() -> DetectionReport:
            torch.cuda.current_stream(self._device).wait_stream(stream)
            return finish()

        return collect
