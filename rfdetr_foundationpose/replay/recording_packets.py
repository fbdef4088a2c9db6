"""Colour that was recorded as video, a packet a message: image_transport's ffmpeg and Foxglove's CompressedVideo. Decoded by PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import av

from . import recording_messages as messages
from .recording_decode import IMAGE, DamagedMessage, read_head

FFMPEG = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
FOXGLOVE = "foxglove_msgs/msg/CompressedVideo"
PACKETS = (FFMPEG, FOXGLOVE)
"""Types of ROS 2 messages. They are of colour: no depth survives such a codec."""
# Encoders and formats by what they begin with.
_CODECS = {
    "libx264": "h264",
    "libx265": "hevc",
    "h265": "hevc",
    "libsvtav1": "av1",
    "libaom": "av1",
    "libvpx-vp9": "vp9",
}
_DECODED = ("h264", "hevc", "av1", "vp9", "vp8", "mjpeg")


class PacketDecoder:
    """Gives the images of one topic, which may come some messages after their own. lost: why packets give none."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._context: Any = None
        self._sent: dict[int, bytes] = {}
        self.lost = ""

    def feed(self, number: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages of type Image that a packet completes, each by the number of its own packet."""
        try:
            codec, payload = _packet(data, self._kind)
            if self._context is None:
                self._context = _context(codec)
            packet = av.Packet(payload)
            packet.pts = packet.dts = number
            self._sent[number] = data
            for old in [n for n in self._sent if n < number - _KEPT]:
                del self._sent[old]  # what gives no image is not kept for ever
            yield from self._images(self._context.decode(packet))
        except (DamagedMessage, av.error.FFmpegError, ValueError) as error:
            self.lost = self.lost or str(error)

    def flush(self) -> Iterator[tuple[int, bytes]]:
        """What the codec kept back."""
        if self._context is None:
            return
        try:
            yield from self._images(self._context.decode(None))
        except av.error.FFmpegError as error:
            self.lost = self.lost or str(error)

    def _images(self, frames: list[Any]) -> Iterator[tuple[int, bytes]]:
        for frame in frames:
            sent = self._sent.pop(frame.pts, None)
            if sent is None:
                continue
            head = read_head(sent, self._kind, "cdr")
            message = messages.image_message(
                messages.header_message(head.stamp, head.frame), frame.to_ndarray(format="rgb24"), "rgb8"
            )
            yield frame.pts, bytes(messages.STORE.serialize_cdr(message, IMAGE))


_KEPT = 64
"""No codec shows a frame so many packets late."""


def _context(codec: str) -> Any:
    """Raises ValueError for a codec that is not read."""
    name = next((found for begin, found in _CODECS.items() if codec.startswith(begin)), codec.partition("_")[0])
    if name not in _DECODED:
        raise ValueError(f"its codec {codec!r} is not read, only {', '.join(_DECODED)}")
    context = av.CodecContext.create(name, "r")
    context.thread_count = 1  # more of them keep frames back
    return context


def _packet(data: bytes, kind: str) -> tuple[str, bytes]:
    """Codec and content of a message in CDR. Raises DamagedMessage."""
    try:
        order = "<" if data[1] & 1 else ">"
        at = 4 + 8
        _, at = _sized(data, at, order)  # the frame
        if kind == FOXGLOVE:
            payload, at = _sized(data, at, order)
            codec, _ = _sized(data, at, order)
        else:
            codec, at = _sized(data, _aligned(at, 4) + 8, order)  # behind width and height
            payload, _ = _sized(data, _aligned(at, 8) + 8 + 2, order)  # behind pts, flags and byte order
        return codec.rstrip(b"\0").decode().partition(";")[0].strip().lower(), payload
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DamagedMessage(f"its bytes are no {kind} ({error})") from None


def _aligned(at: int, size: int) -> int:
    """CDR puts numbers at multiples of their size, counted behind its four bytes."""
    return at + (4 - at) % size


def _sized(data: bytes, at: int, order: str) -> tuple[bytes, int]:
    at = _aligned(at, 4)
    (length,) = struct.unpack_from(f"{order}I", data, at)
    if at + 4 + length > len(data):
        raise IndexError("it is cut off")
    return bytes(data[at + 4 : at + 4 + length]), at + 4 + length


def packed(stamp: int, frame: str, data: bytes, codec: str) -> bytes:
    """CDR of Foxglove's CompressedVideo. stamp: ns."""

    def sized(text: bytes, at: int) -> bytes:
        return bytes(-at % 4) + struct.pack("<I", len(text)) + text

    body = struct.pack("<iI", *divmod(stamp, 1_000_000_000))
    for part in (frame.encode() + b"\0", data, codec.encode() + b"\0"):
        body += sized(part, len(body))
    return b"\0\1\0\0" + body
