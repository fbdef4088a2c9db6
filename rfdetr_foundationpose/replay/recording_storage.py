"""What all files of recordings have in common: their messages in the order of the file, and what could not be read.

rosbags' readers are not used: one damaged chunk ends them, an unindexed file is refused, a write-ahead log beside a
sqlite3 file is not seen, and a topic whose QoS in metadata.yaml differs from the file's yields nothing (findings/).
What a damaged file still holds is worth a lot after a crash, so each reader here goes on behind the damage.
"""

from __future__ import annotations

import bz2
import io
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lz4.frame
import zstandard

from ..errors import UserError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RecordingError(UserError, ValueError):
    """A recording that cannot be read or written; the message names the file, what it holds and what is needed."""


class Message(NamedTuple):
    """A message as recorded. time: of recording, ns. data: serialized; at least its beginning where a head was asked for."""

    topic: str
    time: int
    data: bytes


@dataclass
class Topic:
    """type: as ROS 2 writes it, ``sensor_msgs/msg/Image``. encoding: "cdr", "ros1", or another that is not read.

    count: messages that the file says it holds, None where it does not say.
    """

    type: str
    encoding: str = "cdr"
    count: int | None = None

    @property
    def readable(self) -> bool:
        return self.encoding in ("cdr", "ros1")


@dataclass
class Reading:
    """What one pass over a file met. seen: messages by topic. damage: sentences without the file's name."""

    seen: Counter[str] = field(default_factory=Counter)
    damage: list[str] = field(default_factory=list)


class Storage(Protocol):
    """One file of a recording. notes: sentences about it, e.g. that it is cut off. remedy: a command that repairs it."""

    path: Path
    topics: dict[str, Topic]
    notes: list[str]
    remedy: str
    custom: dict[str, str]

    def messages(self, topics: Collection[str], head: int | None, reading: Reading) -> Iterator[Message]:
        """Messages of ``topics`` in the order of the file. head: so many bytes of each are enough; None: all.

        Never raises for damage: what cannot be read is passed over and said in ``reading``.
        """
        ...


def ros2_type(name: str) -> str:
    """``sensor_msgs/msg/Image`` of what ROS 1 calls ``sensor_msgs/Image``."""
    package, _, kind = name.partition("/")
    return name if not kind or "/" in kind else f"{package}/msg/{kind}"


def decompress(data: bytes, compression: str) -> tuple[bytes, str]:
    """What can be decompressed, and why that is not all ("" when it is). Raises ValueError for an unknown compression."""
    if compression in ("", "none"):
        return data, ""
    unpack: Any
    if compression == "zstd":
        unpack = zstandard.ZstdDecompressor().decompressobj()
    elif compression == "lz4":
        unpack = lz4.frame.LZ4FrameDecompressor()
    elif compression == "bz2":
        unpack = bz2.BZ2Decompressor()
    else:
        raise ValueError(f"compression {compression!r}")
    parts = io.BytesIO()
    try:
        # In steps, so that what comes before a damaged place is kept.
        for start in range(0, len(data), _STEP):
            parts.write(unpack.decompress(data[start : start + _STEP]))
            if unpack.eof:
                return parts.getvalue(), ""
    except (zstandard.ZstdError, RuntimeError, OSError, EOFError, ValueError) as error:
        return parts.getvalue(), f"{compression}: {error}"
    return parts.getvalue(), f"{compression} data is cut off"


_STEP = 1 << 18


def readable_size(size: int) -> str:
    """``1.2 MB``."""
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
