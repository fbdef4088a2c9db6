"""Video that browsers play: VP9 in WebM, through PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

# VP9 is free of patents that are asked money for, and every browser plays it; H.264 would need neither less nor more time.
CODEC = "libvpx-vp9"
OPTIONS = {"deadline": "realtime", "cpu-used": "7", "crf": "36", "b": "0", "row-mt": "1"}


class VideoWriter:
    """A WebM file. Use as a context manager; without a frame no file is written."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._rate = Fraction(max(fps, 0.1)).limit_denominator(1000)
        self._file: Any = None
        self._stream: Any = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Append a frame (H, W, 3) uint8 RGB. Raises ValueError for one of another size than the first."""
        height, width = picture.shape[:2]
        if self._file is None:
            self._size = (width, height)
            self._file = av.open(str(self._path), "w", format="webm")
            self._stream = self._file.add_stream(CODEC, rate=self._rate)
            # Chroma is of half the size: an odd last row or column is left out.
            self._stream.width, self._stream.height = width - width % 2, height - height % 2
            self._stream.pix_fmt, self._stream.options = "yuv420p", dict(OPTIONS)
        if (width, height) != self._size:
            raise ValueError(f"frame is {width}x{height}, the video is {self._size[0]}x{self._size[1]}")
        even = np.ascontiguousarray(picture[: height - height % 2, : width - width % 2])
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
            self._file.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            for packet in self._stream.encode():
                self._file.mux(packet)
            self._file.close()
