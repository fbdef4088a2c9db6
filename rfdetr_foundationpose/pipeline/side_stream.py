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
    """Runs the detector. overlap: on a second stream, where this is CUDA and the detector an OverlappingDetector."""

    def __init__(self, device: torch.device, timer: StageTimer, *, overlap: bool = True) -> None:
        self._device = device
        self._timer = timer
        self._stream = torch.cuda.Stream(device) if overlap and device.type == "cuda" else None

    def start(self, detector: Detector, frame: DeviceFrame) -> Callable[[], DetectionReport]:
        """Start the detector on a frame whose upload is enqueued on the current stream; the returned function waits for the
        report. Without overlap the detector is done when this returns. Call the returned function before the next start; the
        masks belong to the stream that is current at that call.
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
