"""RGB-D recordings of any camera as frames with their ground truth: ROS 2 (MCAP, sqlite3) and ROS 1 bags, without ROS.

``recording_files`` opens and reads them, ``recording_topics`` chooses what belongs together, ``recording_pairs`` pairs
images by their stamps, ``recording_frames`` decodes them. What ``RecordingWriter`` writes is read with its ground truth.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..camera.calibration import is_rectified
from ..camera_files import CameraFile, read_camera
from ..errors import InputError
from ..types import Frame
from .recording_decode import IMAGES
from .recording_files import Files
from .recording_frames import Assembler
from .recording_index import Index, Source, Tally, make_index
from .recording_storage import RecordingError
from .recording_topics import choose_topics
from .recording_truth import GroundTruth, InstanceTruth
from .recording_writer import RecordingWriter

_MILLIMETRE = 0.001
_REASONS = {
    "unmatched": "have no depth image of about their stamp (name other topics with --depth or --rgb)",
    "no_camera_info": "have no calibration (record camera_info too)",
    "damaged_message": "are damaged",
    "unreadable": "are in a part of the file that cannot be read",
}

__all__ = [
    "GroundTruth",
    "InstanceTruth",
    "Recording",
    "RecordingError",
    "RecordingWriter",
    "read_recording",
]


class Recording:
    """A rosbag2 recording (folder, .mcap, .db3), ROS 1 .bag or folder of images; iterate for (Frame, GroundTruth) in time order.

    Topics are chosen as a set that belongs together, or named: ``rgb``, ``depth``, ``camera_info`` (or a file of intrinsics, as
    ``CameraIntrinsics.from_file`` reads it, for a recording without a calibration or with a wrong one); ``reason`` says which
    and why. Depth that is not registered to colour is, where the recording has its calibration and /tf_static. Colour and depth
    are paired by equal header stamps, else within ``slop`` seconds. rectify: undistort images of a camera_info with distortion.
    depth_unit: metres per unit of 16 bits, unless the recording itself names one.

    ``timed`` says whether stamps are times: images in folders may only be numbered.

    A damaged file gives what can be read. ``problems`` are sentences on what cannot, ``tally`` counts what became of each
    colour image: published = frames + dropped. Raises RecordingError that names the file, the reason and the remedy.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rgb: str | None = None,
        depth: str | None = None,
        camera_info: str | None = None,
        slop: float = 0.02,
        depth_unit: float = _MILLIMETRE,
        rectify: bool = False,
    ) -> None:
        self.path = Path(path)
        file = _camera_file(camera_info)
        files = Files(self.path, file)
        images = file is not None and files.of_images  # whose file it is
        given = None if file is None or images or camera_info in files.topics else (file, _read_camera(file))
        chosen = choose_topics(files, rgb, depth, None if images or given else camera_info, given[0] if given else None)
        self.rgb, self.depth = chosen.rgb, chosen.depth
        self.camera_info = given[0].name if given else chosen.camera_info
        self.reason = chosen.reason
        self.timed = files.timed
        unit = chosen.depth_unit if chosen.depth_unit is not None and depth_unit == _MILLIMETRE else depth_unit
        said = [f"{path}: depth is in units of {1e3 * unit:g} mm, as it says"] if unit != depth_unit else []
        self._said = (*chosen.warnings, *files.notes, *said)
        self._aside = chosen.aside
        kinds = {name: topic.type for name, topic in files.topics.items() if topic.readable}
        self.masks = _named(kinds, "mask/", IMAGES)
        self.truths = _named(kinds, "ground_truth/", ("geometry_msgs/msg/PoseStamped",))
        visibilities = _named(kinds, "visibility/", ("std_msgs/msg/Float32",))
        names = {*self.truths.values(), *self.masks.values()}
        stored = _stored_objects(files.custom)
        self.objects: dict[str, str] = {n: stored.get(n, re.sub(r"_\d+$", "", n)) for n in sorted(names)}
        self._source = Source(
            self.path,
            files,
            *(self.rgb, self.depth, self.camera_info),
            *(self.masks, self.truths, visibilities, self.objects),
            slop_ns=int(slop * 1e9),
            depth_unit=unit,
            rectify=rectify,
            rectified=is_rectified(self.rgb),
            depth_camera=chosen.depth_camera,
            camera=given,
        )
        self.tally = Tally(self._aside)

    @cached_property
    def index(self) -> Index:
        """Which images make a frame: a pass over the whole recording, the first time it is asked for."""
        return make_index(self._source)

    def __len__(self) -> int:
        """Frames to expect: pairs of images with a calibration; an image that cannot be decoded is one less."""
        return len(self.index.plan.pairs)

    def identity(self, count: int | None = None) -> dict[str, Any]:
        """What a result belongs to: a digest of the content, the topics, and the frames used (None: all)."""
        topics = [self.rgb, self.depth, self.camera_info]
        frames = len(self) if count is None else min(count, len(self))
        return {"digest": self.index.digest, "topics": topics, "frames": frames}

    def check(self) -> None:
        """Raises RecordingError that says why when no image makes a frame."""
        if len(self):
            return
        reasons = Counter(image for image in self.index.plan.images if isinstance(image, str))
        reasons += Counter({"damaged_message": self.index.damaged, "unreadable": self.index.unreadable})
        said = ", ".join(f"{count} {_REASONS[reason]}" for reason, count in reasons.items()) or "none was recorded"
        raise RecordingError(
            f"{self.path}: no colour image of {self.rgb} makes a frame with {self.depth} and {self.camera_info}: {said}"
            + "".join(f"; {problem}" for problem in self.problems)
        )

    @property
    def problems(self) -> list[str]:
        """What is wrong with the recording, as far as is known by now; after an iteration that is everything."""
        late = [*self.index.notes, *self.tally.notes] if "index" in self.__dict__ else []
        return list(dict.fromkeys([*self._said, *late]))

    @property
    def unmatched(self) -> int:
        """Images without a partner, of both topics."""
        return self.tally.dropped["unmatched"] + self.tally.depth_unmatched

    @property
    def invalid(self) -> list[str]:
        """Why images that have a partner made no frame, and which colour topics were not read; of the last iteration."""
        return self.tally.invalid

    def __iter__(self) -> Iterator[tuple[Frame, GroundTruth]]:
        self.tally = Tally(self._aside)
        return Assembler(self._source, self.index, self.tally).frames()


def _camera_file(camera_info: str | None) -> Path | None:
    if camera_info is None:
        return None
    path = Path(camera_info).expanduser()
    return path if path.is_file() else None


def _read_camera(path: Path) -> CameraFile:
    """Raises RecordingError."""
    try:
        return read_camera(path)
    except InputError as error:
        raise RecordingError(str(error)) from error


def read_recording(path: str | Path, **options: Any) -> Recording:
    """Open a recording; see ``Recording`` for the options."""
    return Recording(path, **options)


def _stored_objects(custom: Mapping[str, str]) -> dict[str, str]:
    """Instance -> object, as RecordingWriter stores it; empty in other recordings."""
    try:
        stored = json.loads(custom.get("objects", "{}"))
    except json.JSONDecodeError:
        return {}
    return {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}


def _named(kinds: Mapping[str, str], part: str, types: Sequence[str]) -> dict[str, str]:
    """Topic -> instance name of the topics ``.../<part><name>``."""
    found = {}
    for topic, kind in kinds.items():
        match = re.search(rf"(?:^|/){part}([A-Za-z]\w*)(?:/compressed)?$", topic)
        if match and kind in types:
            found[topic] = match.group(1)
    return found
