"""RGB-D recordings as rosbag2 (MCAP or sqlite3), written and read without ROS.

Topics written, all stamped and framed alike: ``/rgb/image`` (rgb8), ``/depth/image`` (16UC1 millimetres or 32FC1
metres), ``/rgb/camera_info``, ``/mask/<instance>`` (mono8, 255 inside), ``/ground_truth/<instance>`` (PoseStamped),
``/visibility/<instance>`` (Float32) and ``/tf``. Instances are named like published poses: ``mug``, ``mug_1``.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from ..camera import calibration, compressed, images
from ..errors import UserError
from ..types import Frame, InputError
from . import recording_messages as messages

WORLD = "world"
GROUND_TRUTH_FRAME = "ground_truth/"


class RecordingError(UserError, ValueError):
    """A recording that cannot be read or written; the message names the file, what it holds and what is needed."""


@dataclass(frozen=True)
class InstanceTruth:
    """Where one object instance really is. name: ``mug``, ``mug_1``. T_cam_obj: (4, 4) float64, metres.

    visibility: visible share of the silhouette in [0, 1], None where the recording does not say.
    """

    name: str
    object: str
    T_cam_obj: NDArray[np.float64]
    visibility: float | None = None


@dataclass(frozen=True)
class GroundTruth:
    """The true poses of one frame. T_world_cam: (4, 4) float64, None where the recording does not say."""

    instances: tuple[InstanceTruth, ...] = ()
    T_world_cam: NDArray[np.float64] | None = None


class RecordingWriter:
    """Writes frames to a new rosbag2 directory; a context manager. Raises RecordingError when the path exists.

    storage: "mcap" or "sqlite3". compressed: JPEG colour and PNG depth on the image_transport topics
    ``/rgb/image/compressed`` and ``/depth/image/compressedDepth`` instead of raw images; "png" keeps colours exact.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        objects: Mapping[str, str] | None = None,
        storage: str = "mcap",
        compressed: str | None = None,
    ) -> None:
        if storage not in ("mcap", "sqlite3"):
            raise RecordingError(f"storage={storage!r} must be 'mcap' or 'sqlite3'")
        if compressed not in (None, "jpeg", "png"):
            raise RecordingError(f"compressed={compressed!r} must be None, 'jpeg' or 'png'")
        self.path = Path(path)
        if self.path.exists():
            raise RecordingError(f"{self.path} exists already; choose another path or delete it")
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self.path, version=8, storage_plugin=plugin)
        if storage == "mcap":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._objects = dict(objects or {})
        self._compressed = compressed
        self._connections: dict[str, Connection] = {}
        self._opened = False
        self.frames = 0

    def __enter__(self) -> RecordingWriter:
        self._writer.open()
        self._opened = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The instance's object cannot always be told from its name ("part_1" may be an object), so it is stored.
        self._writer.set_custom_data("objects", json.dumps(self._objects))
        self._writer.__exit__(kind, error, trace)

    def write(self, frame: Frame, truth: GroundTruth | None = None) -> None:
        """Append one frame; its masks go to the mask topics under their own names."""
        if not self._opened:
            raise RecordingError("the recording is not open: use RecordingWriter in a with statement")
        stamp = frame.stamp_ns
        header = messages.header_message(stamp, frame.frame_id)
        for name, mask in frame.masks.items():
            self._send(
                f"/mask/{name}", messages.image_message(header, np.asarray(mask, np.uint8) * 255, "mono8"), stamp
            )
        if truth is not None:
            self._write_truth(header, truth, stamp)
        self._send("/rgb/camera_info", messages.camera_info_message(header, frame.camera), stamp)
        depth, encoding = messages.depth_pixels(frame)
        if self._compressed is None:
            self._send("/depth/image", messages.image_message(header, depth, encoding), stamp)
            self._send("/rgb/image", messages.image_message(header, frame.rgb, "rgb8"), stamp)
        else:
            self._send(
                "/depth/image/compressedDepth",
                messages.compressed_message(header, messages.encode_depth(depth, encoding)),
                stamp,
            )
            self._send(
                "/rgb/image/compressed",
                messages.compressed_message(header, messages.encode_rgb(frame.rgb, self._compressed)),
                stamp,
            )
        self.frames += 1

    def _write_truth(self, header: Any, truth: GroundTruth, stamp: int) -> None:
        transforms = []
        for instance in truth.instances:
            self._objects[instance.name] = instance.object
            pose = messages.TYPES["geometry_msgs/msg/PoseStamped"](header, messages.pose_message(instance.T_cam_obj))
            self._send(f"/ground_truth/{instance.name}", pose, stamp)
            if instance.visibility is not None:
                self._send(
                    f"/visibility/{instance.name}",
                    messages.TYPES["std_msgs/msg/Float32"](float(instance.visibility)),
                    stamp,
                )
            transforms.append(
                messages.transform_message(header, GROUND_TRUTH_FRAME + instance.name, instance.T_cam_obj)
            )
        if truth.T_world_cam is not None:
            transforms.append(
                messages.transform_message(messages.header_message(stamp, WORLD), header.frame_id, truth.T_world_cam)
            )
        if transforms:
            self._send("/tf", messages.TYPES["tf2_msgs/msg/TFMessage"](transforms), stamp)

    def _send(self, topic: str, message: Any, stamp: int) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=messages.STORE)
        self._writer.write(self._connections[topic], stamp, messages.STORE.serialize_cdr(message, kind))


class Recording:
    """A rosbag2 recording (directory, .mcap or .db3) or ROS 1 .bag; iterate for (Frame, GroundTruth) in time order.

    Topics are found by name and type, or named: ``rgb``, ``depth``, ``camera_info``. Colour and depth are paired by
    equal header stamps, else within ``slop`` seconds. ``unmatched`` counts images without a partner and ``invalid``
    holds the reason of each pair that made no Frame, both of the last complete iteration. Raises RecordingError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rgb: str | None = None,
        depth: str | None = None,
        camera_info: str | None = None,
        slop: float = 0.02,
        depth_unit: float = 0.001,
    ) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise RecordingError(f"recording {self.path} does not exist")
        self.slop_ns, self.depth_unit = int(slop * 1e9), depth_unit
        self.unmatched = 0
        self.invalid: list[str] = []
        with self._open() as reader:
            kinds = {c.topic: c.msgtype for c in reader.connections}
            counts = {topic: info.msgcount for topic, info in reader.topics.items()}
            custom = getattr(reader.readers[0], "metadata", None)
        data = getattr(custom, "custom_data", None) or {}
        self.rgb = rgb or self._find(
            kinds, _IMAGES, ("rgb", "color", "colour", "image_raw", "image"), ("depth", "mask")
        )
        self.depth = depth or self._find(kinds, _IMAGES, ("depth",), ("mask", "camera_info"), preferred="aligned")
        self.camera_info = camera_info or self._find(
            kinds, (_CAMERA_INFO,), (self.rgb.split("/image")[0] + "/", "rgb", "color", "camera_info"), ("depth",)
        )
        for topic in (self.rgb, self.depth, self.camera_info):
            if topic not in kinds:
                raise RecordingError(f"{self.path} has no topic {topic}; it has: {_listing(kinds)}")
        self.masks = _named(kinds, "mask/", _IMAGES)
        self.truths = _named(kinds, "ground_truth/", ("geometry_msgs/msg/PoseStamped",))
        self.visibilities = _named(kinds, "visibility/", ("std_msgs/msg/Float32",))
        stored = json.loads(data.get("objects", "{}"))
        names = {*self.truths.values(), *self.masks.values()}
        self.objects: dict[str, str] = {n: stored.get(n, re.sub(r"_\d+$", "", n)) for n in sorted(names)}
        self._count = min(counts[self.rgb], counts[self.depth])

    def __len__(self) -> int:
        """Frames expected: the smaller of the numbers of colour and depth images."""
        return int(self._count)

    def _open(self) -> AnyReader:
        try:
            return AnyReader([self.path], default_typestore=messages.STORE)
        except (AnyReaderError, FileNotFoundError) as error:
            raise RecordingError(f"{self.path} is not a readable recording: {error}") from error

    def _find(
        self,
        kinds: Mapping[str, str],
        types: Sequence[str],
        words: Sequence[str],
        without: Sequence[str],
        preferred: str = "",
    ) -> str:
        topics = [t for t, kind in kinds.items() if kind in types and not any(w in t for w in without)]
        for word in words:
            hits = sorted((t for t in topics if word in t), key=lambda t: (preferred not in t, len(t), t))
            if hits:
                return hits[0]
        raise RecordingError(
            f"{self.path} has no {'/'.join(types)} topic that looks like {words[0]!r}; it has: {_listing(kinds)}. "
            "Name the topic explicitly"
        )

    def __iter__(self) -> Iterator[tuple[Frame, GroundTruth]]:
        self.unmatched, self.invalid = 0, []
        assembler = _Assembler(self)
        wanted = {self.rgb, self.depth, self.camera_info, "/tf", *self.masks, *self.truths, *self.visibilities}
        with self._open() as reader:
            connections = [c for c in reader.connections if c.topic in wanted]
            for connection, time, raw in reader.messages(connections=connections):
                assembler.add(connection.topic, reader.deserialize(raw, connection.msgtype), time)
                yield from assembler.ready(time)
            yield from assembler.ready(None)
        self.unmatched = assembler.unmatched


def read_recording(path: str | Path, **options: Any) -> Recording:
    """Open a recording; see ``Recording`` for the options."""
    return Recording(path, **options)


_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
# Ground truth and masks of a frame may be recorded after its images by this time.
_TRAIL_NS = 200_000_000


@dataclass
class _Assembler:
    """Puts messages of one stamp together, in the order of their colour images."""

    recording: Recording
    camera: Any = None
    unmatched: int = 0
    colors: OrderedDict[int, tuple[Any, int]] = field(default_factory=OrderedDict)
    depths: dict[int, Any] = field(default_factory=dict)
    masks: dict[int, dict[str, Any]] = field(default_factory=dict)
    truths: dict[int, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    visibilities: dict[int, dict[str, float]] = field(default_factory=dict)
    worlds: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, topic: str, message: Any, time: int) -> None:
        r = self.recording
        if topic == r.camera_info:
            self.camera = message
        elif topic == "/tf":
            for t in message.transforms:
                if t.header.frame_id == WORLD and not t.child_frame_id.startswith(GROUND_TRUTH_FRAME):
                    self.worlds[images.stamp_ns(t.header)] = messages.pose_matrix(
                        t.transform.translation, t.transform.rotation
                    )
        elif topic in r.visibilities:
            self.visibilities.setdefault(time, {})[r.visibilities[topic]] = float(message.data)
        elif topic in r.truths:
            pose = messages.pose_matrix(message.pose.position, message.pose.orientation)
            self.truths.setdefault(images.stamp_ns(message.header), {})[r.truths[topic]] = pose
        elif topic in r.masks:
            self.masks.setdefault(images.stamp_ns(message.header), {})[r.masks[topic]] = message
        elif topic == r.depth:
            self.depths[images.stamp_ns(message.header)] = message
        elif topic == r.rgb:
            self.colors[images.stamp_ns(message.header)] = (message, time)

    def ready(self, now: int | None) -> Iterator[tuple[Frame, GroundTruth]]:
        """Frames that are complete: old enough at recording time ``now``, or all that is left for None."""
        while self.colors:
            stamp, (rgb, seen) = next(iter(self.colors.items()))
            if now is not None and now < seen + _TRAIL_NS:
                return
            del self.colors[stamp]
            partner = stamp if stamp in self.depths else min(self.depths, key=lambda d: abs(d - stamp), default=None)
            if partner is None or abs(partner - stamp) > self.recording.slop_ns or self.camera is None:
                self.unmatched += 1
                continue
            depth = self.depths[partner]
            for old in [d for d in self.depths if d <= partner]:
                self.unmatched += old != partner
                del self.depths[old]
            try:
                frame = self._frame(stamp, rgb, depth)
            except InputError as error:
                self.recording.invalid.append(f"{stamp}: {error}")
                continue
            yield frame, self._truth(stamp)
        if now is None:
            self.unmatched += len(self.depths)

    def _frame(self, stamp: int, rgb: Any, depth: Any) -> Frame:
        masks = {name: images.image_to_mask(m) for name, m in self.masks.pop(stamp, {}).items()}
        to_depth = compressed.compressed_to_depth if _compressed(depth) else images.image_to_depth
        pixels, scale = to_depth(depth, self.recording.depth_unit)
        color = (compressed.compressed_to_rgb if _compressed(rgb) else images.image_to_rgb)(rgb)
        # Views into the message are read-only, which torch warns about later.
        color, pixels = (np.require(image, requirements=["C", "W"]) for image in (color, pixels))
        camera = calibration.camera_info_to_intrinsics(self.camera)
        return Frame(stamp, rgb.header.frame_id, color, pixels, scale, camera, masks)

    def _truth(self, stamp: int) -> GroundTruth:
        objects = self.recording.objects
        poses, visible = self.truths.pop(stamp, {}), self.visibilities.pop(stamp, {})
        instances = tuple(InstanceTruth(n, objects[n], T, visible.get(n)) for n, T in sorted(poses.items()))
        return GroundTruth(instances, self.worlds.pop(stamp, None))


def _named(kinds: Mapping[str, str], part: str, types: Sequence[str]) -> dict[str, str]:
    """Topic -> instance name of the topics ``.../<part><name>``."""
    found = {}
    for topic, kind in kinds.items():
        match = re.search(rf"(?:^|/){part}([A-Za-z]\w*)(?:/compressed)?$", topic)
        if match and kind in types:
            found[topic] = match.group(1)
    return found


def _listing(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{t} ({k})" for t, k in sorted(kinds.items())) or "no topics"


def _compressed(message: Any) -> bool:
    return hasattr(message, "format")
