"""A first pass over a recording: stamps, calibrations and ground truth, which fit in memory; images are read later.

It costs a second reading of the file, and buys that a depth image recorded seconds late still finds its colour image,
that a calibration changes at its image, and that the number of frames is known.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..camera.calibration import Calibration, read_calibration
from ..camera.images import stamp_ns
from ..camera.registration import DepthCamera
from ..camera_files import CameraFile
from ..types import InputError
from . import recording_messages as messages
from .recording_decode import DamagedMessage, deserialize, read_head
from .recording_files import Files, Lost
from .recording_packets import PACKETS
from .recording_pairs import Plan, Stamped, make_plan
from .recording_storage import Message
from .recording_truth import GROUND_TRUTH_FRAME, WORLD

_TF, _TF_TYPE = "/tf", "tf2_msgs/msg/TFMessage"
# So much of an image is enough for its header; calibrations, poses and transforms are smaller.
_SMALL = 1 << 17
_DIGESTED = 1 << 12


@dataclass(frozen=True)
class Source:
    """What is read, and how. masks, truths, visibilities: topic -> instance. objects: instance -> object.

    slop_ns: largest difference of stamps. depth_unit: metres per unit of 16UC1. rectify: undistort. rectified: the colour
    topic's images are rectified. depth_camera: by which depth is registered to colour, None where it is.
    camera: file of the intrinsics and what it says, in the place of ``camera_info``.
    """

    path: Path
    files: Files
    rgb: str
    depth: str
    camera_info: str
    masks: Mapping[str, str]
    truths: Mapping[str, str]
    visibilities: Mapping[str, str]
    objects: Mapping[str, str]
    slop_ns: int
    depth_unit: float
    rectify: bool
    rectified: bool
    depth_camera: DepthCamera | None = None
    camera: tuple[Path, CameraFile] | None = None


@dataclass
class Tally:
    """What became of the colour images of one iteration: published = frames + sum(dropped.values()), at any moment.

    dropped: by reason: "unmatched" (no depth image), "no_camera_info", "damaged_message", "unreadable" (in a damaged part of
    the file), and the kinds of InputError. depth_unmatched: depth images without a colour image. distorted: frames of a
    lens with distortion that was left as it is. invalid: sentences on images that made no frame. notes: on the file.
    """

    aside: Sequence[str] = ()
    published: int = 0
    frames: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    depth_unmatched: int = 0
    distorted: int = 0
    invalid: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.invalid += self.aside

    def sentences(self) -> list[str]:
        """``invalid`` with what is said of many images put together."""
        reasons: dict[str, list[str]] = {}
        for line in self.invalid:
            stamp, _, reason = line.partition(": ")
            reasons.setdefault(reason if stamp.isdigit() else line, []).append(stamp)
        return [
            f"{len(stamps)} images make no frame: {reason} (first: {stamps[0]})"
            if len(stamps) > 1
            else f"no frame: {reason}"
            for reason, stamps in reasons.items()
        ]

    def drop(self, reason: str, count: int = 1) -> None:
        self.published += count
        self.dropped[reason] += count


@dataclass
class Index:
    """plan: which images make frames; its calibrations index ``calibrations``, whose equal ones are one object.

    truths, worlds: poses by header stamp. visibilities: by time of recording. masks: by topic and stamp. damaged,
    unreadable: colour images of which not even the header can be read. digest: of the images' beginnings, the same in
    whatever file they are kept.
    """

    plan: Plan
    calibrations: list[Calibration | InputError] = field(default_factory=list)
    truths: dict[int, dict[str, list[NDArray[np.float64]]]] = field(default_factory=dict)
    visibilities: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    worlds: dict[int, list[NDArray[np.float64]]] = field(default_factory=dict)
    masks: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    damaged: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)
    digest: str = ""


def make_index(source: Source) -> Index:
    """One pass over the recording. Never raises for damage; what is lost is in ``notes`` and counted."""
    return _Indexer(source).run()


class _Indexer:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._counts: Counter[str] = Counter()
        self._stamped: dict[str, list[Stamped]] = defaultdict(list)
        self._contents: dict[bytes, Calibration | InputError] = {}
        self._damaged: Counter[str] = Counter()
        self._camera_frame = ""
        self._worlds: dict[str, dict[int, list[NDArray[np.float64]]]] = defaultdict(lambda: defaultdict(list))
        self._index = Index(Plan())
        self._digest = {topic: hashlib.sha256() for topic in (source.rgb, source.depth, source.camera_info)}

    def run(self) -> Index:
        r, index, lost = self._source, self._index, Lost()
        topics = {r.rgb, r.depth, *([] if r.camera else [r.camera_info]), *r.masks, *r.truths, *r.visibilities}
        tf = r.files.topics.get(_TF)
        if tf is not None and tf.readable and tf.type == _TF_TYPE:
            topics.add(_TF)
        for message in r.files.messages(topics, _SMALL, lost):
            number = self._counts[message.topic]
            self._counts[message.topic] += 1
            if message.topic in self._digest:
                self._digest[message.topic].update(message.data[:_DIGESTED])
            try:
                self._take(message, number)
            except DamagedMessage:
                self._damaged[message.topic] += 1
        calibrations = [Stamped(0, 0, 0)] if r.camera else self._stamped[r.camera_info]
        colors = self._stamped[r.rgb]
        if r.files.topics[r.rgb].type in PACKETS:  # a codec may need a later image first
            shown = sorted(colors, key=lambda c: c.stamp)
            colors = [replace(c, time=t) for c, t in zip(shown, sorted(c.time for c in colors), strict=True)]
        index.plan = make_plan(colors, self._stamped[r.depth], calibrations, r.slop_ns)
        index.plan.depth_unmatched += self._damaged[r.depth]
        index.damaged = self._damaged[r.rgb]
        index.unreadable = lost.messages[r.rgb]
        # A file of one transform only, whatever it calls the camera.
        frames = [self._camera_frame] if self._camera_frame in self._worlds else list(self._worlds)
        if len(frames) == 1:
            index.worlds = self._worlds[frames[0]]
        for topic in r.masks:
            by_stamp: dict[int, list[int]] = defaultdict(list)
            index.masks[topic] = by_stamp
            for m in self._stamped[topic]:
                by_stamp[m.stamp].append(m.number)
        whole = b"".join(digest.digest() for digest in self._digest.values())
        index.digest = hashlib.sha256(whole).hexdigest()[:16]
        index.notes = lost.sentences + [f"{r.path}: {note}" for note in index.plan.notes]
        for topic, count in self._damaged.items():
            index.notes.append(f"{r.path}: {count} messages of {topic} are damaged and left out")
        return index

    def _take(self, message: Message, number: int) -> None:
        r, topic = self._source, message.topic
        kind, encoding = r.files.topics[topic].type, r.files.topics[topic].encoding
        if topic in r.visibilities:
            value = float(deserialize(message.data, kind, encoding).data)
            seen = self._index.visibilities.setdefault(message.time, {})
            seen.setdefault(r.visibilities[topic], []).append(value)
            return
        if topic == _TF:
            self._transforms(deserialize(message.data, kind, encoding))
            return
        head = read_head(message.data, kind, encoding)
        if topic == r.rgb and not self._camera_frame:
            self._camera_frame = head.frame
        if topic in r.truths:
            found = deserialize(message.data, kind, encoding)
            poses = self._index.truths.setdefault(head.stamp, {})
            poses.setdefault(r.truths[topic], []).append(_pose(found.pose.position, found.pose.orientation))
            return
        if topic == r.camera_info:
            self._index.calibrations.append(self._calibration(message.data, kind, encoding))
            number = len(self._index.calibrations) - 1
        self._stamped[topic].append(Stamped(number, head.stamp, message.time))

    def _calibration(self, data: bytes, kind: str, encoding: str) -> Calibration | InputError:
        # Behind the stamp, whose place is the same in CDR and ROS 1.
        key = data[12:]
        if key not in self._contents:
            try:
                self._contents[key] = read_calibration(deserialize(data, kind, encoding))
            except InputError as error:
                self._contents[key] = error
        return self._contents[key]

    def _transforms(self, message: Any) -> None:
        for t in message.transforms:
            child = t.child_frame_id.lstrip("/")
            if t.header.frame_id.lstrip("/") == WORLD and not child.startswith(GROUND_TRUTH_FRAME):
                pose = _pose(t.transform.translation, t.transform.rotation)
                self._worlds[child][stamp_ns(t.header)].append(pose)


def _pose(position: Any, orientation: Any) -> NDArray[np.float64]:
    """Raises DamagedMessage for what is no pose."""
    numbers = [getattr(position, n) for n in "xyz"] + [getattr(orientation, n) for n in "xyzw"]
    if not all(math.isfinite(v) for v in numbers) or not any(numbers[3:]):
        raise DamagedMessage(f"its pose {numbers} is none")
    return messages.pose_matrix(position, orientation)
