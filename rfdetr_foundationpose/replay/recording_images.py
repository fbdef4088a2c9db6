"""Folders of colour and depth images with a camera file as a recording: what FoundationPose's demo data, BOP scenes, TUM, ScanNet, 7-Scenes
and many capture programs are.

Each image becomes a message as a camera's driver would have sent it, so that all that reads recordings reads these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..camera_files import CameraFile, read_camera, read_cameras
from ..errors import InputError
from ..frame_files import image_size, read_depth
from . import recording_messages as messages
from .recording_decode import CAMERA_INFO, COMPRESSED, IMAGE
from .recording_storage import Message, Reading, RecordingError, Topic

FRAME = "camera_color_optical_frame"
RATE = 30.0
"""Images that are counted, not stamped, are so many a second."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_COLOR = re.compile(r"rgb|colou?r|(?<![a-z])(?:images?|imgs?)(?![a-z])", re.I)
_DEPTH = re.compile(r"depth", re.I)
# What is said of images, or of others.
_OTHER = re.compile(r"mask|seg|label|vis|render|normal|infra|(?<![a-z])ir(?![a-z])|conf", re.I)
_CAMERA_FILE = re.compile(r"(?:cam|camera|calib|intrinsic|^k$|scene_camera|metadata|transforms|settings)", re.I)
_CAMERA_SUFFIXES = (".txt", ".json", ".yaml", ".yml", ".xml", ".npy")
_TUM_UNIT = 1 / 5000
_MILLIMETRES = 50.0
_EARLIEST = 1_000_000_000  # Numbers from here on are times since 1970.


@dataclass(frozen=True)
class _Image:
    path: Path
    stamp: int


class ImageFolder:
    """See ``recording_storage.Storage``. Raises RecordingError for images without a camera file, or of several cameras."""

    remedy = "give each colour image a depth image of the same number"

    def __init__(
        self, path: Path, color: list[Path], depth: list[Path], topics: tuple[str, str], camera: Path | None
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self.said: list[str] = []
        self.custom: dict[str, str] = {}
        self._color, self._depth = _stamps(path, color, depth)
        self.timed = self._color[0].stamp >= _EARLIEST * 1_000_000_000
        self._cameras = self._of_images(camera or _camera_file(path))
        if (path / "scene_gt.json").is_file():
            self.said.append(
                f"{path} is a scene of a BOP data set; evaluate bop and validate pose also use its ground truth"
            )
        unit = self._cameras[0][1].depth_unit
        if unit is None and (path / "rgb.txt").is_file() and (path / "depth.txt").is_file():
            unit = _TUM_UNIT
        self._unit = unit if unit is not None and abs(unit - 0.001) > 1e-9 else None
        if self._unit is not None:
            self.said.append(f"{path}: depth of 16 bits is in units of {1e3 * self._unit:g} mm, as its files say")
        # A PNG is passed on as it is; what has another unit, or is no picture, is decoded here.
        self._packed = self._unit is None and all(p.path.suffix.lower() == ".png" for p in self._depth)
        self._float_unit = self._unit_of_floats() if not self._packed else 1.0
        rgb, depth_topic = (f"/{topic}/image" for topic in topics)
        self._rgb = f"{rgb}/compressed"
        self._depth_topic = f"{depth_topic}/compressed" if self._packed else depth_topic
        self._info = f"/{topics[0]}/camera_info"
        self.topics = {
            self._rgb: Topic(COMPRESSED, "cdr", len(self._color)),
            self._depth_topic: Topic(COMPRESSED if self._packed else IMAGE, "cdr", len(self._depth)),
            self._info: Topic(CAMERA_INFO, "cdr", len(self._cameras)),
        }

    def _unit_of_floats(self) -> float:
        """Metres per unit of floating-point depth: no camera of colour and depth sees as far as millimetres would be metres."""
        try:
            pixels = read_depth(self._depth[0].path)
        except InputError:  # said when its frame is made
            return 1.0
        seen = pixels[np.isfinite(pixels) & (pixels > 0)]
        if pixels.dtype.kind != "f" or not len(seen) or np.median(seen) < _MILLIMETRES:
            return 1.0
        self.said.append(
            f"{self.path}: depth has a median of {float(np.median(seen)):.0f}, so it is taken for millimetres, not metres"
        )
        return 0.001

    def _of_images(self, file: Path) -> list[tuple[int, CameraFile]]:
        """Cameras and the stamps from which they hold. Raises RecordingError."""
        size = image_size(self._color[0].path)
        try:
            if file.name.startswith("scene_camera"):
                every = {int(name): camera for name, camera in read_cameras(file).items()}
                of = {image.stamp: every.get(int(_number(image.path) or 0)) for image in self._color}
                return [(stamp, camera.at(file, *size)) for stamp, camera in of.items() if camera is not None]
            return [(self._color[0].stamp, read_camera(file).at(file, *size))]
        except InputError as error:
            raise RecordingError(f"{self.path}: {error}") from error

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
        for stamp, kind, what in sorted(every, key=lambda e: e[:2]):
            try:
                data = self._calibration(what, stamp) if kind == 0 else self._image(what, stamp, kind == 2, head)
            except (OSError, InputError) as error:
                reading.damage.append(f"{what.name} cannot be read ({error})")
                continue
            reading.seen[names[kind]] += 1
            yield Message(names[kind], stamp, data)

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
        if pixels.dtype == np.uint16 and self._unit is None:
            return messages.image_message(header, pixels, "16UC1")
        unit = (self._unit or 1.0) if pixels.dtype == np.uint16 else self._float_unit
        return messages.image_message(header, pixels.astype(np.float32) * np.float32(unit), "32FC1")


def _serialized(message: Any, kind: str) -> bytes:
    return bytes(messages.STORE.serialize_cdr(message, kind))


def open_image_folder(path: Path, camera: Path | None = None) -> ImageFolder | None:
    """The recording that a folder of images is; None where it has no colour and depth images. camera: file of its intrinsics, None:
    looked for. Raises RecordingError."""
    folders = sorted(p for p in path.iterdir() if p.is_dir())
    color = [p for p in folders if _COLOR.search(p.name) and not _DEPTH.search(p.name) and not _OTHER.search(p.name)]
    depth = [p for p in folders if _DEPTH.search(p.name) and not _OTHER.search(p.name)]
    colors = {p: found for p in color if (found := _images(p, _SUFFIXES))}
    depths = {p: found for p in depth if (found := _images(p, _DEPTH_SUFFIXES))}
    if colors and depths:
        first, second = _best(colors, ("rgb", "color")), _best(depths, ("depth",))
        return ImageFolder(path, colors[first], depths[second], (_topic(first.name), _topic(second.name)), camera)
    mixed = [p for p in _images(path, (*_SUFFIXES, ".npy")) if not _OTHER.search(p.stem)]
    of_depth = [p for p in mixed if _DEPTH.search(p.stem) and p.suffix.lower() in _DEPTH_SUFFIXES]
    others = [p for p in mixed if not _DEPTH.search(p.stem) and p.suffix.lower() in _SUFFIXES]
    of_color = [p for p in others if _COLOR.search(p.stem)] or others
    return ImageFolder(path, of_color, of_depth, ("rgb", "depth"), camera) if of_color and of_depth else None


def _best(folders: dict[Path, list[Path]], names: tuple[str, ...]) -> Path:
    """That of the plainest name, then the fullest."""
    return min(folders, key=lambda p: (p.name.lower() not in names, -len(folders[p]), p.name))


def _topic(name: str) -> str:
    plain = re.sub(r"\W", "_", name)
    return plain if plain[:1].isalpha() else f"_{plain}"


def _images(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _number(path: Path) -> str | None:
    """The last number of a name: an index, or a time with a point."""
    found = re.findall(r"\d+(?:\.\d+)?", path.stem)
    return found[-1] if found else None


def _stamps(path: Path, color: list[Path], depth: list[Path]) -> tuple[list[_Image], list[_Image]]:
    """Images by their numbers, which are times where they look like times. Raises RecordingError."""
    numbers = {p: _number(p) for p in (*color, *depth)}
    unnamed = next((p for p, n in numbers.items() if n is None), None)
    if unnamed is not None:
        raise RecordingError(f"{path}: {unnamed.name} has no number by which a depth image belongs to it")
    whole = [float(n) for n in numbers.values() if n is not None]
    timed = min(whole) >= _EARLIEST
    found = []
    for images in (color, depth):
        made = [
            _Image(p, _time(str(numbers[p])) if timed else round((float(str(numbers[p])) + 1) * 1e9 / RATE))
            for p in images
        ]
        twice: dict[int, Path] = {}
        for image in made:
            if image.stamp in twice:
                raise RecordingError(
                    f"{path}: {twice[image.stamp].name} and {image.path.name} have the same number; give each camera a folder of "
                    "its own, with rgb/, depth/ and its camera file"
                )
            twice[image.stamp] = image.path
        found.append(sorted(made, key=lambda i: i.stamp))
    return found[0], found[1]


def _time(text: str) -> int:
    """ns of a time since 1970 in seconds, ms, us or ns, by how many digits it has before the point."""
    digits, _, rest = text.partition(".")
    exponent = 9 if len(digits) <= 11 else 6 if len(digits) <= 14 else 3 if len(digits) <= 17 else 0
    return int(digits) * 10**exponent + round(float(f"0.{rest or 0}") * 10**exponent)


def _camera_file(path: Path) -> Path:
    """The file of intrinsics in a folder, or beside it. Raises RecordingError."""
    own = [path / n for n in ("intrinsic", "intrinsics", "calibration", "calib", "camera")]
    for place in (path, *own, path.parent):
        if not place.is_dir():
            continue
        found = [p for p in sorted(place.iterdir()) if p.is_file() and p.suffix.lower() in _CAMERA_SUFFIXES]
        named = found if place in own else [p for p in found if _CAMERA_FILE.search(p.stem)]
        fitting = [p for p in named if not re.search(r"pose|traj|extrinsic|depth", p.stem, re.I)]
        for file in sorted(fitting, key=lambda p: (re.search(r"colou?r|rgb|cam_k", p.stem, re.I) is None, p.name)):
            try:
                read_cameras(file) if file.name.startswith("scene_camera") else read_camera(file)
            except InputError as error:
                if len(fitting) > 1 and "different cameras" not in str(error):
                    continue
                raise RecordingError(f"{path}: {error}") from error
            return file
    raise RecordingError(
        f"{path} has colour and depth images, but no file with the camera's intrinsics: write its 3x3 matrix into "
        f"{path / 'cam_K.txt'}, or copy the camera_info YAML or BOP's camera.json there, or name a file (--camera-info)"
    )
