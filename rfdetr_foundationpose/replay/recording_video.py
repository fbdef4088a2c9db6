"""Colour that was recorded as a video beside images of depth, as phones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .recording_storage import RecordingError

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")


def frame_times(path: Path) -> list[int]:
    """ns from the first frame, in the order of showing; decodes nothing. Raises RecordingError."""
    try:
        with av.open(str(path)) as file:
            stream = file.streams.video[0]
            base = stream.time_base
            # What an edit list cuts off, as trimming on a phone does, is in the file, and is not shown.
            shown = (p for p in file.demux(stream) if p.size and not p.is_discard)
            stamps = sorted(p.pts for p in shown if p.pts is not None)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise RecordingError(f"{path} is no video that can be read ({error})") from error
    if not stamps or base is None:
        raise RecordingError(f"{path} holds no frame of video; copy it again")
    return [round((stamp - stamps[0]) * base * 1_000_000_000) for stamp in stamps]


def frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) uint8 RGB, one after the other, as the pixels are stored: a phone's note of how it was held turns nothing.

    Raises InputError where the file is damaged."""
    try:
        with av.open(str(path)) as file:
            file.streams.video[0].thread_type = "AUTO"
            for frame in file.decode(file.streams.video[0]):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise InputError("bad_rgb", f"video {path} cannot be read on: {error}") from error
