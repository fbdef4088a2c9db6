"""Which topics of a recording belong together: colour, depth registered to it, and the calibration of that camera."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..camera.calibration import is_rectified
from ..camera.images import COLOR_ENCODINGS, DEPTH_ENCODINGS
from ..camera.registration import DepthCamera
from .recording_decode import CAMERA_INFO, COMPRESSED, HEAD, IMAGE, IMAGES, DamagedMessage, Head, read_head
from .recording_files import Files
from .recording_packets import FFMPEG, PACKETS
from .recording_storage import RecordingError, Topic
from .recording_transforms import depth_camera, recorded_unit, stream_of

_REGISTERED = re.compile(r"(?<!un)registered|aligned|(?:to|2)_?(?:rgb|colou?r)", re.I)
_NO_CAMERA_IMAGE = re.compile(
    r"confidence|disparity|infra|(?:^|[/_])ir(?:[/_]|$)|label|segment|semantic|(?:^|[/_])normals?(?:[/_]|$)|debug", re.I
)
_MASK = re.compile(r"(?:^|[/_])masks?(?:[/_]|$)", re.I)
_DEPTH_NAME = re.compile(r"depth(?!ai)", re.I)
_TO_DEPTH = re.compile(r"(?:rgb|colou?r)_?(?:to|2)_?depth", re.I)
_COLOR_NAME = re.compile(r"rgb|colou?r", re.I)
_RIGHT = re.compile(r"(?:^|[/_])right(?:[/_]|$)", re.I)
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")
_VIDEO = {"theora_image_transport/msg/Packet": "theora", FFMPEG: "ffmpeg"}
# A look at the beginning of a recording ends here, whether each topic was seen or not.
_PEEK_MESSAGES = 5000


UNSEEN = Head(0, "")


@dataclass(frozen=True)
class Chosen:
    """reason: a sentence for the user. aside: sentences on images that another choice would have read. depth_camera: by which depth
    is to be registered to colour, None where it is. depth_unit: metres per unit of 16 bits as the recording says, or None."""

    rgb: str
    depth: str
    camera_info: str
    reason: str
    warnings: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    depth_camera: DepthCamera | None = None
    depth_unit: float | None = None


def choose_topics(
    files: Files, rgb: str | None, depth: str | None, camera_info: str | None, camera: Path | None = None
) -> Chosen:
    """The set to read; named topics are taken as they are. camera: file in the place of a calibration's topic. Raises
    RecordingError that lists what there is."""
    for topic in (rgb, depth, camera_info):
        if topic is not None and topic not in files.topics:
            raise RecordingError(f"{files.path} has no topic {topic}; it has: {listing(files.topics)}")
    if depth is not None and files.topics[depth].type in PACKETS:
        raise RecordingError(
            f"{files.path}: {depth} is video, which keeps no depth; record the raw topic or compressedDepth"
        )
    kinds = {n: t for n, t in files.topics.items() if t.count != 0 and t.readable and not _packets_of_ros1(t)}
    seen = _peek(files, {n for n, t in kinds.items() if t.type in (*IMAGES, *PACKETS, CAMERA_INFO)})
    colors = [rgb] if rgb else [n for n in _candidates(kinds, seen, depth=False) if n != depth]
    depths = [depth] if depth else [n for n in _candidates(kinds, seen, depth=True) if n != rgb]
    if not colors:
        raise RecordingError(_missing(files, kinds, seen, "colour image", "--rgb"))
    if not depths:
        raise RecordingError(_missing(files, kinds, seen, "depth image", "--depth"))
    ranks = {(c, d): _rank(c, d, files.topics, seen) for c in colors for d in depths}
    color, paired = max(ranks, key=lambda pair: ranks[pair])
    place = _depth_camera(files, color, paired, kinds, seen)
    warnings, why = _judge(files, color, paired, seen, named=depth is not None, placed=place is not None)
    info = "" if camera else camera_info or _camera_info(files, color, kinds, seen)
    reason = f"{files.path}: colour {color}, depth {paired} ({why}), calibration {camera or info}"
    unit = recorded_unit(files, paired)
    return Chosen(color, paired, info, reason, tuple(warnings), tuple(_aside(files, color, colors)), place, unit)


def listing(topics: Mapping[str, Topic], seen: Mapping[str, Head] | None = None) -> str:
    """Topics with their types, and encodings of images that were ``seen``, for people."""
    shown = []
    for name, topic in sorted(topics.items()):
        head = (seen or {}).get(name, UNSEEN)
        said = [topic.type or topic.encoding, *([head.encoding] if head.encoding and topic.type in IMAGES else [])]
        shown.append(f"{name} ({', '.join([*said, *(['empty'] if topic.count == 0 else [])])})")
    more = f" and {len(shown) - 40} more" if len(shown) > 40 else ""
    return ", ".join(shown[:40]) + more or "no topics"


def _missing(files: Files, kinds: Mapping[str, Topic], seen: Mapping[str, Head], what: str, option: str) -> str:
    images = [n for n, t in kinds.items() if t.type in IMAGES]
    if images and not any(n in seen for n in images):
        why = "".join(f"; {note}" for note in files.notes) or "; none was recorded"
        return f"{files.path}: no message of {', '.join(sorted(images))} can be read{why}"
    unreadable = sorted({t.encoding for t in files.topics.values() if not t.readable})
    hint = f"; messages in {', '.join(unreadable)} are not read, only those of ROS" if unreadable else ""
    if video := {
        n: t.type for n, t in files.topics.items() if t.type in _VIDEO and (t.type != FFMPEG or _packets_of_ros1(t))
    }:
        name, kind = next(iter(video.items()))
        hint += (
            f"; {name} is video, which is not read: make images of it by ros2 run image_transport republish --ros-args -p "
            f"in_transport:={_VIDEO[kind]} -p out_transport:=compressed, and record those"
        )
    remedy = f"Name the topic explicitly ({option})"
    if not any(kinds[n].readable for n in images):
        remedy = "Record the topics of the camera's ROS driver (ros2 bag record)"
    return f"{files.path} has no {' or '.join(IMAGES)} topic that looks like a {what}; it has: {listing(files.topics, seen)}{hint}. {remedy}"


def _packets_of_ros1(topic: Topic) -> bool:
    """Video, whose messages are other ones in ROS 1."""
    return topic.type in PACKETS and topic.encoding != "cdr"


def _peek(files: Files, topics: set[str]) -> dict[str, Head]:
    """What the first sound message of each topic says, in the order of names."""
    found: dict[str, Head] = {}
    for count, message in enumerate(files.messages(topics, HEAD)):
        if message.topic not in found:
            topic = files.topics[message.topic]
            with suppress(DamagedMessage):
                head = read_head(message.data, topic.type, topic.encoding)
                # realsense-viewer gives all streams the same number for a frame.
                alike = head.frame.isdigit() and stream_of(message.topic)
                found[message.topic] = head._replace(frame=stream_of(message.topic)) if alike else head
        if len(found) == len(topics) or count >= _PEEK_MESSAGES:
            break
    return {name: found[name] for name in sorted(found)}


def _base(topic: str) -> str:
    """A topic without the transport that image_transport appends."""
    head, _, tail = topic.rpartition("/")
    return head if tail in _TRANSPORTS and head else topic


def _camera(topic: str) -> list[str]:
    return _base(topic).split("/")[1:-1]


def _device(topic: str) -> list[str]:
    """``/robot/camera`` of ``/robot/camera/color/image_raw``."""
    parts = _camera(topic)
    return parts[:-1] if len(parts) > 1 else parts


def _is_depth(name: str, topic: Topic, seen: Head) -> bool:
    if topic.type in PACKETS:
        return _names_depth(name)
    if topic.type == COMPRESSED:
        return "compressedDepth" in seen.encoding or name.endswith("/compressedDepth") or _names_depth(name)
    if seen.encoding in DEPTH_ENCODINGS and seen.encoding not in COLOR_ENCODINGS:
        return True
    return _names_depth(name) and seen.encoding in ("", *DEPTH_ENCODINGS)


def _names_depth(name: str) -> bool:
    # "/depth_to_rgb/..." and "aligned_depth_to_color" are depth, "/color_to_depth/..." is colour.
    return _DEPTH_NAME.search(name) is not None and _TO_DEPTH.search(name) is None


def _candidates(kinds: Mapping[str, Topic], seen: Mapping[str, Head], depth: bool) -> list[str]:
    """Image topics of depth, or of colour; those that are named like something else only where there is no other."""
    types = IMAGES if depth else (*IMAGES, *PACKETS)
    images = [n for n in seen if kinds[n].type in types and _MASK.search(n) is None]
    fitting = [n for n in images if _is_depth(n, kinds[n], seen[n]) == depth]
    return [n for n in fitting if _NO_CAMERA_IMAGE.search(n) is None] or fitting


def _same(a: str, b: str) -> int:
    """1: the same frame, -1: another one, 0: not known."""
    return 0 if not a or not b else 1 if a == b else -1


def _common(a: str, b: str) -> int:
    """Leading parts of the names that two topics share: their camera."""
    count = 0
    for x, y in zip(_camera(a), _camera(b), strict=False):
        if x != y:
            break
        count += 1
    return count


def _rank(color: str, depth: str, kinds: Mapping[str, Topic], seen: Mapping[str, Head]) -> tuple[Any, ...]:
    c, d = seen.get(color, UNSEEN), seen.get(depth, UNSEEN)
    sizes = [s for s in (c.size, d.size) if s != (0, 0)]
    frames = _same(c.frame, d.frame)
    return (
        _depth_transport(depth, kinds[depth], d) > 0,
        len(set(sizes)) < 2,
        frames,
        _registered(color, depth),
        _common(color, depth),
        _color_quality(color, c),
        _depth_transport(depth, kinds[depth], d),
        (*PACKETS, COMPRESSED, IMAGE).index(kinds[color].type),
        is_rectified(color),
        -len(color),
        -len(depth),
        # Names decide where nothing else does, so that every run chooses alike.
        [-ord(letter) for letter in color + depth],
    )


def _registered(color: str, depth: str) -> bool:
    """Whether depth is named as registered to colour, and not to another camera's."""
    a, b = _camera(color), _camera(depth)
    same = not a or not b or a[0] == b[0] or len(a) == 1 or len(b) == 1
    return same and _REGISTERED.search(depth) is not None


def _color_quality(name: str, seen: Head) -> int:
    if _RIGHT.search(name):
        return 0
    grey = seen.encoding in ("mono8", "8UC1", "mono16")
    return 1 if grey else 3 if _COLOR_NAME.search(name) else 2


def _depth_transport(name: str, topic: Topic, seen: Head) -> int:
    """3: raw, 2: compressedDepth, 1: a lossless picture, 0: JPEG, which holds no depth."""
    if topic.type == IMAGE:
        return 3
    if "compressedDepth" in seen.encoding or name.endswith("/compressedDepth"):
        return 2
    return 0 if "jp" in seen.encoding.lower() else 1


def _depth_camera(
    files: Files, color: str, depth: str, kinds: Mapping[str, Topic], seen: Mapping[str, Head]
) -> DepthCamera | None:
    """Of depth in another frame than colour, where nothing says that it is registered and the recording has what is needed."""
    c, d = seen.get(color, UNSEEN), seen.get(depth, UNSEEN)
    if _same(c.frame, d.frame) >= 0 or _registered(color, depth):
        return None
    try:
        info = _camera_info(files, depth, kinds, seen)
    except RecordingError:
        return None
    return depth_camera(files, depth, info, (c.frame, d.frame))


def _judge(
    files: Files, color: str, depth: str, seen: Mapping[str, Head], *, named: bool, placed: bool
) -> tuple[list[str], str]:
    """Warnings and the reason for a pair. placed: depth can be registered. Raises RecordingError for depth that is not the colour
    camera's."""
    c, d = seen.get(color, UNSEEN), seen.get(depth, UNSEEN)
    if _depth_transport(depth, files.topics[depth], d) == 0 and not named:
        raise RecordingError(
            f"{files.path}: the only depth, {depth}, is JPEG ({d.encoding!r}), which keeps no depth; record the raw topic or "
            "compressedDepth"
        )
    registered = _registered(color, depth)
    same = _same(c.frame, d.frame)
    if same >= 0:
        why = f"both in frame {c.frame}" if same else "no frame_id tells"
        return [], why + (", registered by its name" if registered else "")
    differ = f"depth {depth} is in frame {d.frame}, colour {color} in {c.frame}"
    if placed:
        return [], f"in frame {d.frame}, drawn into the image of {c.frame} by the transform and calibration recorded"
    if registered or named:
        said = "its name says that it is registered to colour" if registered else "it was named"
        return [f"{files.path}: {differ}; {said}, so it is read: is it registered to colour?"], said
    raise RecordingError(
        f"{files.path}: {differ}: it is not registered to colour. Record the driver's registered topic (aligned_depth_to_color, "
        f"depth_to_rgb, depth_registered), or /tf_static and the camera_info of depth too, or name this one to read it all the same: "
        f"--depth {depth}"
    )


def _camera_info(files: Files, color: str, kinds: Mapping[str, Topic], seen: Mapping[str, Head]) -> str:
    """The calibration beside the colour topic, else one of the same frame and size. Raises RecordingError."""
    c = seen.get(color, UNSEEN)
    infos = [n for n, topic in kinds.items() if topic.type == CAMERA_INFO]
    beside = "/".join(["", *_camera(color), "camera_info"])

    def rank(name: str) -> tuple[Any, ...]:
        i = seen.get(name, UNSEEN)
        fits = c.size == (0, 0) or i.size == (0, 0) or c.size == i.size
        return (fits, _same(c.frame, i.frame), name == beside, _common(color, name), not _names_depth(name), -len(name))

    belonging = [n for n in infos if n == beside or _same(c.frame, seen.get(n, UNSEEN).frame) >= 0]
    if not belonging:
        held = ", ".join(f"{n} (frame {seen.get(n, UNSEEN).frame})" for n in infos) or f"only {listing(files.topics)}"
        raise RecordingError(
            f"{files.path} has no {CAMERA_INFO} topic of {color}"
            + (f" (frame {c.frame})" if c.frame else "")
            + f"; it has {held}. "
            f"Record {beside} too, or name a topic, or a file of the camera's intrinsics (--camera-info cam_K.txt)"
        )
    return max(belonging, key=rank)


def _aside(files: Files, color: str, colors: list[str]) -> list[str]:
    """Colour of other cameras: nobody should think that it was read."""
    said = []
    for other in sorted(colors):
        if _device(other) != _device(color):
            count = files.topics[other].count
            said.append(
                f"{other}: its {'' if count is None else f'{count} '}images are not read, colour is {color}; --rgb names another"
            )
    return said
