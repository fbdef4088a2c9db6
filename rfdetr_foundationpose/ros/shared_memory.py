"""Fast DDS's shared-memory segments: what ended processes left, and what this one would leave.

A participant holds an exclusive flock on ``<name>_el`` beside each of its segments (Fast DDS: SharedMemManager,
RobustExclusiveLock), so a lock that can be had means that nobody uses the segment any more, in whatever container it was.
Needs no rclpy.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/dev/shm")
# Files are called fastrtps up to Jazzy, fastdds since Kilted; each is a segment of messages, or the queue of a port.
_LOCK = re.compile(r"(fast(?:dds|rtps)_(?:port\d+|[0-9a-f]{16}))_el")
# A participant that is being made has its lock file a moment before its lock, in seconds.
SETTLED = 5.0


@dataclass(frozen=True)
class Segment:
    """A segment that no living process holds. size: bytes."""

    path: Path
    size: int


def left_behind(folder: Path = FOLDER) -> list[Segment]:
    """Segments of processes that are gone. Those of other users that we may not open are not listed."""
    mapped: set[str] | None = None
    found = []
    for lock, path in _pairs(folder):
        try:
            if time.time() - lock.stat().st_mtime < SETTLED:
                continue
            if "_port" in path.name:
                # Its writers hold no lock; what they have mapped of a message segment stays theirs.
                mapped = _mapped() if mapped is None else mapped
                if str(path) in mapped:
                    continue
            handle = os.open(lock, os.O_RDONLY)
        except OSError:
            continue
        try:
            if _free(handle):
                found.append(Segment(path, _size(path)))
        finally:
            os.close(handle)
    return found


def remove_left_behind(folder: Path = FOLDER) -> int:
    """Remove them, each only while nobody else can take it into use. Returns the bytes that became free."""
    return sum(segment.size for segment in left_behind(folder) if _remove(segment.path))


def abandon(folder: Path = FOLDER) -> None:
    """Remove what this process holds, because it is about to end without destroying its participants.

    Peers keep what they have mapped; nothing here may use the transport afterwards.
    """
    for number in _numbers(Path("/proc/self/fd")):
        with suppress(OSError):
            target = Path(f"/proc/self/fd/{number}").readlink()
            match = _LOCK.fullmatch(target.name)
            if match is not None and target.parent == folder:
                os.close(number)
                _remove(folder / match[1])


def summary(segments: Iterable[Segment]) -> str:
    """``3 segments, 34.1 MB``."""
    sizes = [s.size for s in segments]
    return f"{len(sizes)} segment{'' if len(sizes) == 1 else 's'}, {sum(sizes) / 1e6:.1f} MB"


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return
    for name in names:
        match = _LOCK.fullmatch(name)
        if match is not None:
            yield folder / name, folder / match[1]


def _remove(path: Path) -> bool:
    lock = path.with_name(path.name + "_el")
    try:
        handle = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        if not _free(handle):
            return False
        for file in (path, path.with_name(f"sem.{path.name}_mutex"), lock):
            with suppress(FileNotFoundError):
                file.unlink()
    except OSError:  # of another user
        return False
    finally:
        os.close(handle)
    return True


def _free(handle: int) -> bool:
    """Whether the lock is ours now; closing the handle gives it back."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mapped() -> set[str]:
    """Files of shared memory that any process we can look into has mapped."""
    found: set[str] = set()
    for number in _numbers(Path("/proc")):
        with suppress(OSError):
            maps = Path(f"/proc/{number}/maps").read_text(errors="replace")
            found.update(re.findall(rf"{FOLDER}/\S+", maps))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
