"""The second pass over a recording: images in, frames out, in the order of the colour images.

An image waits, as recorded, until what belongs to it has come; memory grows with how late depth was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera.calibration import Calibration, of_camera_file
from ..camera.compressed import compressed_to_depth, compressed_to_rgb
from ..camera.images import image_to_depth, image_to_mask, image_to_rgb
from ..camera.rectify import Rectifier
from ..camera.registration import DepthRegistration
from ..frame_files import MILLIMETRES, measured
from ..types import Frame, InputError
from .recording_decode import COMPRESSED, IMAGE, DamagedMessage, deserialize
from .recording_files import Lost
from .recording_index import Index, Source, Tally
from .recording_packets import PACKETS, PacketDecoder
from .recording_pairs import Pair
from .recording_truth import GroundTruth, InstanceTruth

# Metres between which the median of an image of things to be tracked lies, and how many pixels of every sixteenth tell. Beyond
# pose.max_depth nothing is tracked, and data sets with tenths of millimetres are only ten times as far.
_NEAREST, _FARTHEST, _ENOUGH = 0.03, 5.0, 20


@dataclass
class _Waiting:
    """A frame in the making. missing: images that have not come yet."""

    missing: int
    images: dict[str, bytes] = field(default_factory=dict)


class Assembler:
    """One iteration over a recording; ``tally`` is kept up to date."""

    def __init__(self, source: Source, index: Index, tally: Tally) -> None:
        self._source, self._index, self._tally = source, index, tally
        self._kinds = {n: (t.type, t.encoding) for n, t in source.files.topics.items()}
        kind, encoding = self._kinds[source.rgb]
        self._packets = PacketDecoder(kind) if kind in PACKETS and encoding == "cdr" else None
        if self._packets is not None:
            self._kinds[source.rgb] = (IMAGE, "cdr")
        self._rectify = Rectifier()
        self._register: DepthRegistration | None = None
        self._judged, self._seen, self._float_scale = False, 0, 1.0
        self._waiting: dict[int, _Waiting] = {}
        # (topic, number) of an image -> the frame that it belongs to, by the position of its colour image
        self._wanted: dict[tuple[str, int], int] = {}
        for position, image in enumerate(index.plan.images):
            if isinstance(image, Pair):
                needed = self._needed(image)
                self._wanted |= dict.fromkeys(needed, position)
                self._waiting[position] = _Waiting(len(needed))

    def _needed(self, pair: Pair) -> list[tuple[str, int]]:
        r = self._source
        needed = [(r.rgb, pair.color.number), (r.depth, pair.depth.number)]
        for topic, by_stamp in self._index.masks.items():
            numbers = by_stamp.get(pair.color.stamp, ())
            if pair.ordinal < len(numbers):
                needed.append((topic, numbers[pair.ordinal]))
        return needed

    def frames(self) -> Iterator[tuple[Frame, GroundTruth]]:
        r, lost = self._source, Lost()
        position = 0
        for topic, number, data in self._messages(lost):
            wanted = self._wanted.pop((topic, number), None)
            if wanted is None:
                continue
            waiting = self._waiting[wanted]
            waiting.images[topic] = data
            waiting.missing -= 1
            while position < len(self._index.plan.images) and self._complete(position):
                yield from self._give(position)
                position += 1
        for rest in range(position, len(self._index.plan.images)):
            yield from self._give(rest)
        if not self._judged and not self._seen and self._tally.frames:
            self._tally.notes.append(
                f"{r.path}: {r.depth} holds no depth: no pixel of any frame is a distance (all are 0, NaN or negative)"
            )
        self._tally.drop("damaged_message", self._index.damaged)
        self._tally.drop("unreadable", self._index.unreadable)
        self._tally.dropped += Counter()  # without what is zero
        self._tally.depth_unmatched = self._index.plan.depth_unmatched
        self._tally.notes += lost.sentences
        if self._packets is not None and self._tally.dropped["unreadable"]:
            why = self._packets.lost or "no key frame comes before them"
            self._tally.notes.append(f"{r.path}: packets of the video {r.rgb} give no image: {why}")
        self._tally.invalid += [f"{r.rgb}: a message is damaged"] * self._index.damaged

    def _messages(self, lost: Lost) -> Iterator[tuple[str, int, bytes]]:
        """Topic, number in it and content; of video the images that its packets become, which may come later."""
        r = self._source
        counts: Counter[str] = Counter()
        for message in r.files.messages([r.rgb, r.depth, *r.masks], None, lost):
            topic, number = message.topic, counts[message.topic]
            counts[topic] += 1
            if topic == r.rgb and self._packets is not None:
                yield from ((topic, n, image) for n, image in self._packets.feed(number, message.data))
            else:
                yield topic, number, message.data
        if self._packets is not None:
            yield from ((r.rgb, n, image) for n, image in self._packets.flush())

    def _complete(self, position: int) -> bool:
        waiting = self._waiting.get(position)
        return waiting is None or waiting.missing == 0

    def _give(self, position: int) -> Iterator[tuple[Frame, GroundTruth]]:
        """The frame at a position, or nothing and the reason in the tally."""
        image = self._index.plan.images[position]
        if isinstance(image, str):
            if image != "unmatched":
                self._tally.invalid.append(f"{self._source.rgb}: {image}")
            self._tally.drop(image)
            return
        waiting = self._waiting.pop(position)
        if {self._source.rgb, self._source.depth} - set(waiting.images):
            self._tally.drop("unreadable")
            return
        try:
            frame = self._frame(image, waiting.images)
        except InputError as error:
            self._tally.invalid.append(f"{image.color.stamp}: {error}")
            self._tally.drop(error.kind)
            return
        self._tally.published += 1
        self._tally.frames += 1
        yield frame, self._truth(image)

    def _frame(self, pair: Pair, images: dict[str, bytes]) -> Frame:
        r = self._source
        rgb, depth = self._message(r.rgb, images), self._message(r.depth, images)
        color = compressed_to_rgb(rgb) if self._kinds[r.rgb][0] == COMPRESSED else image_to_rgb(rgb)
        calibration = self._calibration(pair, color.shape[1], color.shape[0])
        to_depth = compressed_to_depth if self._kinds[r.depth][0] == COMPRESSED else image_to_depth
        pixels, scale = to_depth(depth, r.depth_unit)
        self._judge(pixels, scale)
        if pixels.dtype.kind == "f" and scale == 1.0:
            scale = self._float_scale
        if r.depth_camera is not None:
            self._register = self._register or DepthRegistration(r.depth_camera)
            pixels = self._register(pixels, scale, calibration, r.rectified)
        masks = {
            name: image_to_mask(self._message(topic, images)) for topic, name in r.masks.items() if topic in images
        }
        # Views into the message are read-only, which torch warns about later.
        color, pixels = (np.require(image, requirements=["C", "W"]) for image in (color, pixels))
        camera = calibration.of_image(r.rectified)
        frame_id = rgb.header.frame_id.lstrip("/")
        frame = Frame(pair.stamp, frame_id, color, pixels, scale, camera, masks)
        return self._undistorted(frame, calibration)

    def _calibration(self, pair: Pair, width: int, height: int) -> Calibration:
        given = self._source.camera
        if given is not None:
            return of_camera_file(*given, width, height)
        found = self._index.calibrations[pair.calibration]
        if isinstance(found, InputError):
            raise found
        return found

    def _judge(self, pixels: NDArray[Any], scale: float) -> None:
        """Say once where depth cannot be in the unit in which it is read."""
        if self._judged:
            return
        metres = measured(pixels[::4, ::4]) * float(scale)
        self._seen = max(self._seen, len(metres))
        if len(metres) < _ENOUGH:
            return
        self._judged, middle = True, float(np.median(metres))
        if _NEAREST < middle < _FARTHEST:
            return
        if pixels.dtype.kind == "f" and scale == 1.0 and middle > MILLIMETRES:
            self._float_scale = 0.001
            self._tally.notes.append(
                f"{self._source.path}: {self._source.depth} has a median of {middle:.0f}, so it is taken for millimetres; floating-point depth is "
                "in metres (REP 118), and the node takes it so: publish metres"
            )
            return
        remedy = (
            "32FC1 is in metres (REP 118); record metres"
            if pixels.dtype.kind == "f"
            else f"set input.depth_unit to metres per unit, now {scale:g}"
        )
        self._tally.notes.append(
            f"{self._source.path}: the depth of the first frame has a median of {middle:.3g} m, which is unusual for such a camera: is its "
            f"unit another one? {remedy}"
        )

    def _undistorted(self, frame: Frame, calibration: Calibration) -> Frame:
        r = self._source
        if not calibration.distorted or r.rectified:
            return frame
        if r.rectify:
            return self._rectify(frame, calibration)
        self._tally.distorted += 1
        if self._tally.distorted == 1:
            self._tally.notes.append(f"{r.path}: {calibration.warning(r.rgb)}")
        return frame

    def _message(self, topic: str, images: dict[str, bytes]) -> Any:
        kind, encoding = self._kinds[topic]
        try:
            return deserialize(images[topic], kind, encoding)
        except DamagedMessage as error:
            raise InputError("damaged_message", f"a message of {topic} is damaged: {error}") from None

    def _truth(self, pair: Pair) -> GroundTruth:
        objects, stamp = self._source.objects, pair.color.stamp
        poses = _chosen(self._index.truths.get(stamp, {}), pair.ordinal)
        visible = _chosen(self._index.visibilities.get(stamp, {}), pair.ordinal)
        instances = tuple(InstanceTruth(n, objects[n], T, visible.get(n)) for n, T in sorted(poses.items()))
        worlds = self._index.worlds.get(stamp, [])
        return GroundTruth(instances, worlds[pair.ordinal] if pair.ordinal < len(worlds) else None)


def _chosen(values: dict[str, list[Any]], ordinal: int) -> dict[str, Any]:
    """Of each name the value of the ordinal-th image with the stamp."""
    return {name: listed[ordinal] for name, listed in values.items() if ordinal < len(listed)}
