"""Which files of a folder are colour, depth and calibration, and when each image was taken."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..camera_files import CameraFile, image_number, read_camera, read_cameras
from ..errors import InputError
from .recording_storage import RecordingError
from .recording_video import SUFFIXES as VIDEOS
from .recording_video import VideoTimes, video_times

RATE = 30.0
"""Images that are counted, not stamped, are so many a second."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".exr")
_COLOR = re.compile(r"rgb|colou?r|(?<!ultra)wide|(?<![a-z])(?:images?|imgs?)(?![a-z])", re.I)
_DEPTH = re.compile(r"depth|distance_to_image_plane", re.I)
_NOT_READ = {
    ".dpt": "it is Linemod's own format; take the data set's edition of BOP, which evaluate bop reads, or convert it to PNG of 16 bits",
    ".depth": "Record3D packs it with LZFSE; export EXR and RGB there, or convert it to .npy in metres (the package pyliblzfse unpacks it)",
}
_ALONG_RAYS = re.compile(r"distance_to_camera", re.I)
# Of files and folders that are neither colour nor depth.
_OTHER = re.compile(r"mask|seg|label|vis|render|normal|infra|(?<![a-z])ir(?![a-z])|conf|intrinsic|camera_params", re.I)
_CAMERA_FILE = re.compile(r"cam|camera|calib|intrinsic|^k$|^info$|scene_camera|metadata|transforms|settings", re.I)
# Files of these names may hold anything, and are passed over where they hold no camera.
_OF_ANYTHING = re.compile(r"^info$|metadata|settings", re.I)
_CAMERA_FOLDER = re.compile(r"cam|calib|intrinsic|meta", re.I)
_CAMERA_SUFFIXES = (".txt", ".json", ".yaml", ".yml", ".xml", ".npy", ".csv", ".mat", ".pincam")
_EACH_SUFFIXES = (".json", ".mat", ".pincam", ".txt", ".yaml", ".yml")
_NO_CAMERA = re.compile(r"pose|traj|extrinsic|depth", re.I)
_EARLIEST = 1_000_000_000  # Numbers from here on are times.
_LATEST = 2**31  # Seconds that a stamp of ROS holds.
_CLOSE = 5_000_000  # ns: ARKit's intrinsics are named up to 1 ms beside their images.
_STEPS = (0.002, 5.0)  # Seconds between images, at least and at most.


@dataclass(frozen=True)
class Layout:
    """color: images, or one video. topics: what colour and depth are called."""

    path: Path
    color: list[Path]
    depth: list[Path]
    topics: tuple[str, str]

    @property
    def video(self) -> bool:
        return self.color[0].suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Taken:
    """A file and when it was taken, ns."""

    path: Path
    stamp: int


def find_layout(path: Path) -> Layout | None:
    """Colour and depth in folders of their own, in one, or in the only folder of ``path`` that has them; None without.

    Raises RecordingError for several such folders, for distances that are no depth, and for a package that is missing."""
    every = [found] if (found := _layout(path)) else [inside for p in _folders(path) if (inside := _layout(p))]
    if len(every) > 1:
        names = ", ".join(layout.path.name for layout in every[:6])
        raise RecordingError(
            f"{path} holds {len(every)} folders of colour and depth images: name one of them ({names})"
        )
    if not every:
        return None
    if every[0].depth[0].suffix.lower() == ".exr" and importlib.util.find_spec("OpenEXR") is None:
        raise RecordingError(f"{path}: depth in .exr needs OpenEXR: pip install OpenEXR")
    return every[0]


def _layout(path: Path) -> Layout | None:
    folders = _folders(path)
    color = [p for p in folders if _COLOR.search(p.name) and not _DEPTH.search(p.name) and not _OTHER.search(p.name)]
    depth = [p for p in folders if _DEPTH.search(p.name) and not _OTHER.search(p.name)]
    colors = {p: found for p in color if (found := _files(p, _SUFFIXES))}
    depths = {p: found for p in depth if (found := _files(p, _DEPTH_SUFFIXES))}
    if depths and not colors:
        videos = [p for p in _files(path, VIDEOS) if not _DEPTH.search(p.stem) and not _OTHER.search(p.stem)]
        videos = [p for p in videos if _COLOR.search(p.stem)] or videos
        colors = {p: [p] for p in videos[:1]} if len(videos) == 1 else {}
    if colors and depths:
        first, second = _best(colors, ("rgb", "color", "images")), _best(depths, ("depth",))
        return Layout(path, colors[first], depths[second], (_topic(first.stem), _topic(second.name)))
    mixed = [p for p in _files(path, (*_SUFFIXES, ".npy", ".npz", ".exr")) if not _OTHER.search(p.stem)]
    of_depth = [p for p in mixed if _DEPTH.search(p.stem) and p.suffix.lower() in _DEPTH_SUFFIXES]
    others = [p for p in mixed if not _DEPTH.search(p.stem) and p.suffix.lower() in _SUFFIXES]
    of_color = [p for p in others if _COLOR.search(p.stem)] or others
    if of_color and of_depth:
        return Layout(path, of_color, of_depth, ("rgb", "depth"))
    films = [p for folder in (path, *folders) for p in _files(folder, VIDEOS)]
    of_depth = [p for p in films if _DEPTH.search(p.stem) and not _OTHER.search(p.stem)]
    if of_depth and (colors or of_color or len(films) > len(of_depth)):
        name = of_depth[0].name
        raise RecordingError(
            f"{path}: depth as a video ({name}) is not read; where its codec keeps 16 bits (FFV1) make images of it: mkdir depth; "
            f"ffmpeg -i {name} -fps_mode passthrough -pix_fmt gray16be depth/%06d.png; of H.264 and other codecs of 8 bits no depth is left"
        )
    packed = [p for folder in (path, *folders) for p in _files(folder, _NOT_READ)[:1]]
    if packed and (colors or of_color or _files(packed[0].parent, _SUFFIXES)):
        raise RecordingError(
            f"{path}: depth in {packed[0].suffix} ({packed[0].name}) is not read; {_NOT_READ[packed[0].suffix.lower()]}"
        )
    rays = [p for p in (*folders, *mixed) if _ALONG_RAYS.search(p.stem)]
    if rays and (colors or of_color):
        raise RecordingError(
            f"{path}: {rays[0].name} is the distance along each ray, depth is that along the optical axis; record Isaac Sim's "
            "distance_to_image_plane instead"
        )
    return None


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir())


def _files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _best(folders: dict[Path, list[Path]], names: tuple[str, ...]) -> Path:
    """That of the plainest name, then the fullest."""
    return min(folders, key=lambda p: (p.name.lower() not in names, -len(folders[p]), p.name))


def _topic(name: str) -> str:
    plain = re.sub(r"\W", "_", name)
    return plain if plain[:1].isalpha() else f"_{plain}"


class Clock:
    """Numbers of names as ns, of times that no stamp of ROS holds from the first image on. timed: they are times, which images of a
    data set may not have. video: of colour that is one. Raises RecordingError."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.path
        self._first = 0  # what is taken off numbers
        self.video: VideoTimes | None = None
        of_clock = layout.depth if layout.video else layout.color
        numbers = {p: image_number(p) for p in (*of_clock, *layout.depth)}
        unnamed = next((p for p, n in numbers.items() if n is None), None)
        if unnamed is not None:
            raise RecordingError(f"{layout.path}: {unnamed.name} has no number by which a depth image belongs to it")
        named = [n for n in numbers.values() if n is not None]
        times = sorted(float(str(numbers[p])) for p in of_clock)
        points = all("." in n for n in named)
        self.timed = points or _looks_like_times(times)
        self._exponent = _exponent(times, points) if self.timed else 0
        if self.timed and times[-1] * 10**self._exponent >= _LATEST * 1e9:
            self._first = min(int(n.partition(".")[0]) for n in named)
        if layout.video:
            taken = sorted(self._time(n) if self.timed else int(n) for n in named)
            self.video = video_times(layout.color[0], taken, self.timed)

    def taken(self, files: Sequence[Path]) -> list[Taken]:
        """In the order of time. Raises RecordingError for two of one number."""
        if len(files) == 1 and files[0].suffix.lower() in VIDEOS:
            return [Taken(files[0], stamp) for stamp in (self.video.frames if self.video else ())]
        twice: dict[int, Path] = {}
        for path in files:
            stamp = self._stamp(str(image_number(path)))
            if stamp in twice and twice[stamp].stem == path.stem:
                raise RecordingError(
                    f"{self._path}: {twice[stamp].name} and {path.name} are the same image twice; keep the files of one suffix"
                )
            if stamp in twice:
                raise RecordingError(
                    f"{self._path}: {twice[stamp].name} and {path.name} have the same number; give each camera a folder of "
                    "its own, with rgb/, depth/ and its camera file"
                )
            twice[stamp] = path
        return [Taken(path, stamp) for stamp, path in sorted(twice.items())]

    def _stamp(self, text: str) -> int:
        if self.video is not None:
            return self.video.stamp_of(self._time(text) if self.timed else int(float(text)))
        return self._time(text) if self.timed else round((float(text) + 1) * 1e9 / RATE)

    def _time(self, text: str) -> int:
        digits, _, rest = text.partition(".")
        return (int(digits) - self._first) * 10**self._exponent + round(float(f"0.{rest or 0}") * 10**self._exponent)


def _looks_like_times(values: Sequence[float]) -> bool:
    """Whether sorted numbers are those of a clock, not of a counter: large ones, or far apart from each other."""
    step = float(np.median(np.diff(values))) if len(values) > 1 else 0.0
    return values[0] >= _EARLIEST or step >= 1000 or (values[0] >= 1_000_000 and step >= 10)


def _exponent(values: Sequence[float], points: bool) -> int:
    """Of sorted times in s, ms, us or ns: the power of ten that makes ns of them. Times since 1970 tell by their size; those of a
    clock of the device by how far apart images are. points: they are written with decimal points, as seconds are."""
    fitting = [e for e in (9, 6, 3, 0) if _EARLIEST <= values[0] * 10 ** (e - 9) < _LATEST]
    since_1970 = fitting[0] if fitting else 9
    if len(values) < 2 or (points and fitting == [9]):
        return since_1970
    step = float(np.median(np.diff(values)))
    if _STEPS[0] <= step * 10 ** (since_1970 - 9) <= _STEPS[1]:
        return since_1970
    fitting = [e for e in (9, 6, 3, 0) if _STEPS[0] <= step * 10 ** (e - 9) <= _STEPS[1]]
    return fitting[0] if fitting else since_1970


def cameras(layout: Layout, clock: Clock, given: Path | None) -> tuple[Path, list[tuple[int, CameraFile]]]:
    """Calibrations and the stamps from which they hold, and the file or folder that they are from. given: that file, None: looked
    for in the folder and above it. Raises RecordingError."""
    first = clock.taken(layout.color)[0].stamp
    file = given or _camera_file(layout.path)
    try:
        if file is None:
            each = _camera_of_each(layout, clock)
            if each:
                return each[0][0].path.parent, [(taken.stamp, camera) for taken, camera in each]
        elif file.suffix.lower() in (".json", ".yml", ".yaml"):
            every = read_cameras(file)
            if len(every) > 1 and _by_number(every):
                of_number = {float(name): camera for name, camera in every.items()}
                numbered = [
                    (t.stamp, of_number.get(float(image_number(t.path) or 0))) for t in clock.taken(layout.color)
                ]
                found = [(stamp, camera) for stamp, camera in numbered if camera is not None]
                if not found:
                    raise RecordingError(
                        f"{layout.path}: camera file {file} has cameras of the images {', '.join(list(every)[:4])}, ..., and no image "
                        f"has such a number, as {layout.color[0].name}; copy the file that belongs to these images"
                    )
                return file, found
            return file, [(first, read_camera(file))]
        else:
            return file, [(first, read_camera(file))]
    except InputError as error:
        raise RecordingError(f"{layout.path}: {error}") from error
    raise RecordingError(
        f"{layout.path} has colour and depth images, but no file with the camera's intrinsics: write its 3x3 matrix into "
        f"{layout.path / 'cam_K.txt'}, or copy the camera_info YAML or BOP's camera.json there, or name a file (--camera-info)"
    )


def _camera_file(path: Path) -> Path | None:
    """The file of intrinsics in a folder, or above it. Raises RecordingError for one that cannot be used."""
    own = [path / n for n in ("intrinsic", "intrinsics", "calibration", "calib", "camera")]
    for place in (path, *own, path.parent, path.parent.parent):
        if not place.is_dir():
            continue
        found = _files(place, _CAMERA_SUFFIXES)
        named = found if place in own else [p for p in found if _CAMERA_FILE.search(p.stem)]
        fitting = [p for p in named if not _NO_CAMERA.search(p.stem)]
        several = place not in own and sum(map(_numbered, fitting)) > 1
        fitting = [p for p in fitting if not (several and _numbered(p))]
        for file in sorted(fitting, key=lambda p: (re.search(r"colou?r|rgb|cam_k", p.stem, re.I) is None, p.name)):
            try:
                every = read_cameras(file)
                if not _by_number(every):
                    read_camera(file)
            except InputError as error:
                many = len(fitting) > 1 and "different cameras" not in str(error)
                if many or _OF_ANYTHING.search(file.stem):
                    continue
                raise RecordingError(f"{path}: {error}") from error
            return file
    return None


def _by_number(every: Collection[str]) -> bool:
    """Whether cameras of a file are named by the numbers of images."""
    return all(re.fullmatch(r"\d+(?:\.\d+)?", name) for name in every)


def _numbered(file: Path) -> bool:
    """Of one image, where there are several: ``camera_params_0003.json``. One alone has a date or a serial number."""
    return re.search(r"\d{4,}$", file.stem) is not None


def _camera_of_each(layout: Layout, clock: Clock) -> list[tuple[Taken, CameraFile]]:
    """Of files that belong to one image each, beside it or in a folder of such, of which the plainest name is the shortest. Raises
    InputError, RecordingError."""
    color = [t.stamp for t in clock.taken(layout.color)]
    first, last = color[0] - _CLOSE, color[-1] + _CLOSE
    places = [p for p in _folders(layout.path) if _CAMERA_FOLDER.search(p.name)]
    for place in sorted(dict.fromkeys((*places, layout.path, layout.color[0].parent)), key=lambda p: len(p.name)):
        for suffix in _EACH_SUFFIXES:
            files = [
                p for p in _files(place, (suffix,)) if image_number(p) is not None and not _NO_CAMERA.search(p.stem)
            ]
            files = [p for p in files if re.search(r"cam|meta|intrinsic", p.stem, re.I)] or files
            if not files:
                continue
            try:
                read_camera(files[0])
            except InputError:
                continue
            each = [(t, read_camera(t.path)) for t in clock.taken(files) if first <= t.stamp <= last]
            if each:
                return each
    return []
