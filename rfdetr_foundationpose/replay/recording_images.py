"""Folders of colour and depth images with a camera file as a recording: what FoundationPose's demo data, BOP scenes, TUM, ScanNet, 7-Scenes,
phones with a LiDAR and many capture programs are.

Each image becomes a message as a camera's driver would have sent it, so that all that reads recordings reads these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..camera_files import CameraFile
from ..errors import InputError
from ..frame_files import MILLIMETRES, image_size, measured, read_depth
from . import recording_messages as messages
from .image_layout import Clock, Layout, cameras, find_layout
from .recording_decode import CAMERA_INFO, COMPRESSED, IMAGE
from .recording_storage import Message, Reading, RecordingError, Topic
from .recording_video import VideoReader, frames

FRAME = "camera_color_optical_frame"
_TUM_UNIT = 1 / 5000
_LIDAR = {(256, 192), (192, 256)}
"""Sizes of the depth that iPhones and iPads give, which ARKit registers to colour."""


class ImageFolder:
    """See ``recording_storage.Storage``. Raises RecordingError for images without a camera file, or of several cameras."""

    remedy = "give each colour image a depth image of the same number"

    def __init__(self, path: Path, layout: Layout, camera: Path | None) -> None:
        self.path = path
        self.notes: list[str] = []
        self.said: list[str] = []
        self.custom: dict[str, str] = {}
        if layout.path != path:
            self.said.append(f"{path}: the images are those of {layout.path.name}")
        clock = Clock(layout)
        self._color, self._depth = clock.taken(layout.color), clock.taken(layout.depth)
        self.timed, self._video = clock.timed or layout.video, clock.video
        if clock.video:
            self.said += clock.video.said
            self.remedy = "copy the video again"
        self._size = self._color_size()
        file, found = cameras(layout, clock, camera)
        if camera is None and layout.path not in (file, *file.parents):
            self.said.append(f"{path}: the camera is that of {file}")
        try:
            self._cameras = [(stamp, camera_file.at(file, *self._size)) for stamp, camera_file in found]
        except InputError as error:
            raise RecordingError(f"{path}: {error}") from error
        if (layout.path / "scene_gt.json").is_file():
            self.said.append(
                f"{path} is a scene of a BOP data set; evaluate bop and validate pose also use its ground truth"
            )
        unit = self._cameras[0][1].depth_unit
        if unit is None and (layout.path / "rgb.txt").is_file() and (layout.path / "depth.txt").is_file():
            unit = _TUM_UNIT
        self._unit = unit if unit is not None and abs(unit - 0.001) > 1e-9 else None
        if self._unit is not None:
            self.said.append(f"{path}: depth of 16 bits is in units of {1e3 * self._unit:g} mm, as its files say")
        first = self._first_depth()
        self._enlarged = self._of_lidar(first)
        # A PNG is passed on as it is; what has another unit or size, or is no picture, is decoded here.
        png = all(p.path.suffix.lower() == ".png" for p in self._depth) and _of_one_channel(self._depth[0].path)
        self._packed = self._unit is None and not self._enlarged and png
        self._float_unit = self._unit_of_floats(first)
        rgb, depth_topic = (f"/{topic}/image" for topic in layout.topics)
        self._rgb = rgb if self._video else f"{rgb}/compressed"
        self._depth_topic = f"{depth_topic}/compressed" if self._packed else depth_topic
        self._info = f"/{layout.topics[0]}/camera_info"
        self.topics = {
            self._rgb: Topic(IMAGE if self._video else COMPRESSED, "cdr", len(self._color)),
            self._depth_topic: Topic(COMPRESSED if self._packed else IMAGE, "cdr", len(self._depth)),
            self._info: Topic(CAMERA_INFO, "cdr", len(self._cameras)),
        }

    def _color_size(self) -> tuple[int, int]:
        """Width and height of the first image. Raises RecordingError."""
        first = self._color[0].path
        try:
            if self._video:
                _, shown = next(frames(first, hidden=self._video.hidden), (None, None))
                if shown is None:
                    raise RecordingError(f"{first} shows no frame, though it holds some: is its beginning cut off?")
                return shown.shape[1], shown.shape[0]
            return image_size(first)
        except InputError as error:
            raise RecordingError(f"{self.path}: {error}") from error

    def _first_depth(self) -> NDArray[Any]:
        """The first depth image that can be read. Raises RecordingError with what is wrong with the first where there is none."""
        problem = ""
        for taken in self._depth:
            try:
                return read_depth(taken.path)
            except InputError as error:
                problem = problem or str(error)
        raise RecordingError(f"{self.path}: no depth image can be read; {problem}")

    def _of_lidar(self, depth: NDArray[Any]) -> bool:
        """Whether depth is a phone's, of the same view as colour in fewer pixels."""
        height, width = depth.shape
        same_view = abs(width * self._size[1] / (height * self._size[0]) - 1) < 0.02
        if (width, height) not in _LIDAR or (width, height) == self._size or not same_view:
            return False
        self.said.append(
            f"{self.path}: depth of {width}x{height} is taken for that of Apple's LiDAR, which is registered to colour, and each of "
            f"its pixels is drawn larger, {self._size[0]}x{self._size[1]} in all"
        )
        return True

    def _unit_of_floats(self, depth: NDArray[Any]) -> float:
        """Metres per unit of floating-point depth."""
        seen = measured(depth)
        if depth.dtype.kind != "f" or not len(seen) or np.median(seen) < MILLIMETRES:
            return 1.0
        self.said.append(
            f"{self.path}: depth has a median of {float(np.median(seen)):.0f}, so it is taken for millimetres, not metres"
        )
        return 0.001

    def _calibration(self, camera: CameraFile, stamp: int) -> bytes:
        header = messages.header_message(stamp, FRAME)
        assert camera.size is not None
        K = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1], np.float64)
        P = np.hstack([K.reshape(3, 3), np.zeros((3, 1))]).ravel()
        roi = messages.TYPES["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        width, height = camera.size
        message = messages.TYPES[CAMERA_INFO](
            header,
            height,
            width,
            camera.model,
            np.array(camera.distortion, np.float64),
            K,
            np.eye(3).ravel(),
            P,
            0,
            0,
            roi,
        )
        return _serialized(message, CAMERA_INFO)

    def messages(self, topics: Collection[str], head: int | None, reading: Reading) -> Iterator[Message]:
        """See ``Storage``; colour before depth of the same stamp."""
        every: list[tuple[int, int, Any]] = [(i.stamp, 1, i.path) for i in self._color if self._rgb in topics]
        every += [(i.stamp, 2, i.path) for i in self._depth if self._depth_topic in topics]
        every += [(stamp, 0, camera) for stamp, camera in self._cameras if self._info in topics]
        names = {0: self._info, 1: self._rgb, 2: self._depth_topic}
        shown = VideoReader(self._color[0].path, self._video) if self._video and head is None else None
        for stamp, kind, what in sorted(every, key=lambda e: e[:2]):
            try:
                if kind == 0:
                    data = self._calibration(what, stamp)
                elif kind == 1 and self._video:
                    data = self._of_video(shown, stamp, reading)
                else:
                    data = self._image(what, stamp, kind == 2, head)
            except (OSError, InputError) as error:
                reading.damage.append(f"{what.name} cannot be read ({error})")
                continue
            reading.seen[names[kind]] += 1
            yield Message(names[kind], stamp, data)

    def _of_video(self, shown: VideoReader | None, stamp: int, reading: Reading) -> bytes:
        """The next frame, empty where it is damaged, so that it keeps its place; without ``shown`` its header alone."""
        header = messages.header_message(stamp, FRAME)
        try:
            pixels = np.zeros((0, 0, 3), np.uint8) if shown is None else shown.next()
        except InputError as error:
            reading.damage.append(str(error))
            return b""
        return _serialized(messages.image_message(header, pixels, "rgb8"), IMAGE)

    def _image(self, path: Path, stamp: int, depth: bool, head: int | None) -> bytes:
        header = messages.header_message(stamp, FRAME)
        if depth and not self._packed:
            return _serialized(self._depth_message(path, header), IMAGE)
        with path.open("rb") as file:
            data = np.frombuffer(file.read() if head is None else file.read(head), np.uint8)
        format = "16UC1; png" if depth else f"rgb8; {path.suffix[1:].lower()} compressed bgr8"
        return _serialized(messages.TYPES[COMPRESSED](header, format, data), COMPRESSED)

    def _depth_message(self, path: Path, header: Any) -> Any:
        pixels = read_depth(path)
        if self._enlarged:
            pixels = cv2.resize(pixels, self._size, interpolation=cv2.INTER_NEAREST)
        if pixels.dtype == np.uint16 and self._unit is None:
            return messages.image_message(header, pixels, "16UC1")
        unit = (self._unit or 1.0) if pixels.dtype == np.uint16 else self._float_unit
        return messages.image_message(header, pixels.astype(np.float32) * np.float32(unit), "32FC1")


def _of_one_channel(png: Path) -> bool:
    """By its header; of what cannot be read too, which is said when its frame is made."""
    try:
        with png.open("rb") as file:
            return file.read(26)[25:] in (b"", b"\0")
    except OSError:
        return True


def _serialized(message: Any, kind: str) -> bytes:
    return bytes(messages.STORE.serialize_cdr(message, kind))


def open_image_folder(path: Path, camera: Path | None = None) -> ImageFolder | None:
    """The recording that a folder of images is; None where it has no colour and depth images. camera: file of its intrinsics, None:
    looked for. Raises RecordingError."""
    layout = find_layout(path)
    return None if layout is None else ImageFolder(path, layout, camera)
