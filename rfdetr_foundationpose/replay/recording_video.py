"""Colour that was recorded as a video beside images of depth, as phones do: its frames, their times, and which depth is whose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .recording_storage import RecordingError

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_SAME_CLOCK = 0.2
"""Two series are of one clock where they lie within this share of a step, at the median; series of different clocks sweep
through it and are a quarter of a step apart."""

_ROUNDED = 500_000  # ns


@dataclass(frozen=True)
class VideoTimes:
    """When each frame of a video was taken (ns, in the order of showing).

    frames: on the clock of the depth images; in_file: on the video's own. hidden: frames that its edit list cuts off are among them.
    stamp_of: the ns of a depth image, from its time (ns) or its number. said: how they were paired, where that is not plain.
    """

    frames: list[int]
    in_file: list[int]
    hidden: bool
    stamp_of: Callable[[int], int]
    said: list[str]


def frame_times(path: Path, *, hidden: bool = False) -> list[int]:
    """ns, in the order of showing; decodes nothing. hidden: also what an edit list cuts off, as trimming on a phone does. Raises
    RecordingError."""
    try:
        with _opened(path, hidden) as file:
            stream = file.streams.video[0]
            base = stream.time_base
            shown = (p for p in file.demux(stream) if p.size and not p.is_discard)
            stamps = sorted(p.pts for p in shown if p.pts is not None)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise RecordingError(f"{path} is no video that can be read ({error})") from error
    if not stamps or base is None:
        raise RecordingError(f"{path} holds no frame of video; copy it again")
    return [round(stamp * base * 1_000_000_000) for stamp in stamps]


def frames(path: Path, *, hidden: bool = False) -> Iterator[tuple[int | None, NDArray[np.uint8]]]:
    """The time as ``frame_times`` has it, None where the file does not say, and (H, W, 3) uint8 RGB, one after the other, as the
    pixels are stored: a phone's note of how it was held turns nothing. What cannot be decoded is left out.

    Raises InputError where the file cannot be read on."""
    try:
        with _opened(path, hidden) as file:
            file.streams.video[0].thread_type = "AUTO"
            for packet in file.demux(file.streams.video[0]):
                for frame in _decoded(packet):
                    base = frame.time_base
                    ns = None if frame.pts is None or base is None else round(frame.pts * base * 1_000_000_000)
                    yield ns, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise InputError("bad_rgb", f"video {path} cannot be read on: {error}") from error


def _decoded(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        return []


class VideoReader:
    """The frames of a video in their order, each once; one that is damaged takes no other one's place."""

    def __init__(self, path: Path, times: VideoTimes) -> None:
        self._decoded = frames(path, hidden=times.hidden)
        self._awaited = iter(times.in_file)
        self._ahead: tuple[int | None, NDArray[np.uint8]] | None = None

    def next(self) -> NDArray[np.uint8]:
        """Raises InputError where it cannot be decoded."""
        awaited = next(self._awaited)
        while (shown := self._ahead or next(self._decoded, None)) is not None:
            stamp, pixels = shown
            late = stamp is not None and stamp > awaited + _ROUNDED
            self._ahead = shown if late else None
            if late:
                raise InputError("bad_rgb", f"the frame at {awaited / 1e9:.3f} s cannot be decoded")
            if stamp is None or stamp >= awaited - _ROUNDED:
                return pixels
        raise InputError("bad_rgb", "the video ends before this frame")


def _opened(path: Path, hidden: bool) -> Any:
    return av.open(str(path), options={"ignore_editlist": "1"} if hidden else {})


def video_times(path: Path, depth: Sequence[int], timed: bool) -> VideoTimes:
    """Which depth image belongs to which frame. depth: sorted times (ns) where ``timed``, else numbers. Raises RecordingError.

    As many frames as depth images belong together one by one, unless both have times that say otherwise. Where there are more or
    fewer, times decide; without times of depth, the gaps between the video's where these are as many as are missing.
    """
    shown, hidden, said = frame_times(path), False, []
    if len(depth) != len(shown):
        every = frame_times(path, hidden=True)
        if len(every) == len(depth):
            said.append(
                f"{path}: its edit list hides {len(every) - len(shown)} of {len(every)} frames, which are used: depth counts them"
            )
            shown, hidden = every, True
    begin = min(shown[0], 0)  # stamps of ROS are not negative
    at, stamp_of, more = (_by_time if timed else _by_number)(path, [stamp - begin for stamp in shown], depth)
    return VideoTimes(at, shown, hidden, stamp_of, said + more)


def _by_time(path: Path, shown: list[int], depth: Sequence[int]) -> tuple[list[int], Callable[[int], int], list[str]]:
    video, taken = np.array(shown, np.int64), np.array(depth, np.int64)
    together = depth[0] <= shown[-1]  # both count from the video's beginning
    video += 0 if together else taken[0] - video[0]
    step = float(np.median(np.diff(taken))) if len(taken) > 1 else 0.0
    alike = len(video) == len(taken)
    if alike and np.abs(video - taken).max() <= step / 2:
        return list(depth), int, []
    if _one_clock(video, taken):
        begin = "" if together else ", its first frame with the first depth image"
        counts = f"{len(video)} frames, {len(taken)} depth images"
        return video.tolist(), int, [f"{path} pairs with depth by time{begin} ({counts})"]
    lasts = f"{(shown[-1] - shown[0]) / 1e9:.2f} s of {path.name}, {(depth[-1] - depth[0]) / 1e9:.2f} s of depth"
    if alike:
        why = f"its times are not those of the depth images ({lasts}), which are as many"
        return list(depth), int, [f"{path} pairs with depth one by one: {why}"]
    raise RecordingError(
        f"{path} has {len(video)} frames, and there are {len(taken)} depth images: which belong together neither their numbers tell "
        f"nor their times, which are of different clocks ({lasts}); write colour as images that are named by their times"
    )


def _one_clock(left: NDArray[np.int64], right: NDArray[np.int64]) -> bool:
    """Whether the sparser of two series lies on the other one."""
    if min(len(left), len(right)) < 2:
        return True
    dense, sparse = sorted((left, right), key=lambda series: float(np.median(np.diff(series))))
    after = np.clip(np.searchsorted(dense, sparse), 1, len(dense) - 1)
    beside = np.minimum(np.abs(dense[after] - sparse), np.abs(dense[after - 1] - sparse))
    inside = (sparse >= dense[0]) & (sparse <= dense[-1])
    step = float(np.median(np.diff(dense)))
    return bool(inside.any()) and float(np.median(beside[inside])) <= _SAME_CLOCK * step


def _by_number(path: Path, shown: list[int], depth: Sequence[int]) -> tuple[list[int], Callable[[int], int], list[str]]:
    count, last = len(shown), shown[-1]
    step = max(round(float(np.median(np.diff(shown)))) if count > 1 else round(1e9 / 30), 1)
    if count == len(depth):
        of_order = dict(zip(depth, shown, strict=True))
        return shown, lambda number: of_order.get(number, last + (abs(number) + 1) * step), []
    first = 1 if depth[0] == 1 and depth[-1] == count else min(depth[0], 1) if depth[-1] >= count else 0
    slots = [round((stamp - shown[0]) / step) for stamp in shown]
    missing = depth[-1] - first + 1 - count
    if missing <= 0:
        places, said = [*range(count)], []
    elif slots[-1] + 1 - count == missing and len({*slots}) == count:
        places = slots
        said = [f"{path} lost {missing} frames where its times have gaps; their depth images are left out"]
    else:
        places = [*range(count)]
        said = [
            f"{path} has {count} frames, and depth counts up to {depth[-1]}: the number of a depth image is taken for that of its frame, "
            "which is wrong from the first frame that the video lost; name depth images by their times, or write colour as images"
        ]
    of_place = dict(zip(places, shown, strict=True))
    return shown, lambda number: of_place.get(number - first, last + (abs(number) + 1) * step), said
