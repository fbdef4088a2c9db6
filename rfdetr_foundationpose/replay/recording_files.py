"""The files of a recording: found, told apart by what they begin with, and read one after the other."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml
import zstandard

from ..stand_ins import HEAD, stand_in
from . import recording_bag1, recording_mcap, recording_sqlite
from .recording_bag1 import Bag1File
from .recording_images import open_image_folder
from .recording_mcap import McapFile
from .recording_sqlite import SqliteFile
from .recording_storage import ZSTD_MAGIC, Message, Reading, RecordingError, Storage, Topic, ros2_type

_SUFFIXES = (".mcap", ".db3", ".bag", ".active", ".zstd", ".zst")
_KINDS: tuple[tuple[Callable[[Path], Storage], bytes, tuple[str, ...]], ...] = (
    (McapFile, recording_mcap.MAGIC, (".mcap",)),
    (SqliteFile, recording_sqlite.MAGIC, (".db3",)),
    (Bag1File, recording_bag1.MAGIC, (".bag", ".active")),
)
_ROS_DRIVER = "play it by the camera's ROS driver and record its topics, colour and depth registered to it"
_OTHERS = {
    **dict.fromkeys((".mkv", ".svo", ".svo2", ".oni", ".klg", ".raw"), _ROS_DRIVER),
    **dict.fromkeys(
        (".mp4", ".avi", ".mov", ".webm"),
        "a video has no depth; name the folder where its depth images are, or record colour and depth as a bag or as images",
    ),
    **dict.fromkeys((".zip", ".gz", ".tgz", ".tar", ".7z", ".rar", ".r3d"), "unpack it and name the folder"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tiff", ".exr"), "it is one image; name the folder of colour and depth"),
    **dict.fromkeys(
        (".hdf5", ".h5"), "write what is in it as images (BlenderProc: bproc.writer.write_bop) and name their folder"
    ),
    ".ply": "it is a mesh or points; record images of colour and depth",
}
_METADATA = "metadata.yaml"
_COPY = 1 << 20


@dataclass
class Lost:
    """What a pass over a recording could not read. messages: by topic, as far as that is known. sentences: why."""

    messages: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)


class Files:
    """A recording of one file or more. notes: sentences on what is wrong with it. Raises RecordingError.

    path: a rosbag2 folder, one of its files (.mcap, .db3, also compressed as .zstd), a ROS 1 bag, a folder of such, or of images.
    camera: file of the intrinsics of the latter, None: found. of_images: it is one. timed: its stamps are times.
    """

    def __init__(self, path: Path, camera: Path | None = None) -> None:
        self.path = path.parent if path.name == _METADATA else path
        if not self.path.exists():
            raise RecordingError(f"recording {self.path} does not exist")
        self.of_images, self.timed = False, True
        self._camera = camera
        self.notes: list[str] = []
        self.custom: dict[str, str] = {}
        self._unpacked: list[tempfile.TemporaryDirectory[str]] = []
        self._shown: dict[str, str] = {}
        self._expected: dict[str, int] = {}
        self._incomplete = False
        self._storages: list[Storage] = []
        files = self._in_folder() if self.path.is_dir() else [self.path]
        refused: list[str] = []
        for file in files:
            try:
                self._storages.append(self._open(file))
            except RecordingError as error:
                refused.append(self._show(str(error)))
            except OSError as error:
                refused.append(f"{file} cannot be read: {error.strerror or error}")
        if not self._storages:
            raise RecordingError(refused[0] + (f" ({len(refused)} files like this)" if len(refused) > 1 else ""))
        self.notes += refused
        self._damaged = self._incomplete or bool(refused) or any(storage.notes for storage in self._storages)
        self.topics: dict[str, Topic] = {}
        for storage in self._storages:
            self.notes += self._described(storage, storage.notes)
            self.custom = storage.custom | self.custom
            self._merge(storage.topics)
        self._compare()

    def _merge(self, topics: Mapping[str, Topic]) -> None:
        for name, topic in topics.items():
            known = self.topics.get(name)
            if known is None:
                self.topics[name] = Topic(topic.type, topic.encoding, topic.count)
            elif known.type != topic.type:
                self.notes.append(f"{self.path}: {name} is {known.type} and {topic.type}; only the first is read")
            elif known.count is not None:
                known.count = None if topic.count is None else known.count + topic.count

    def _in_folder(self) -> list[Path]:
        """Storage files in the order of recording. Raises RecordingError when there are none."""
        metadata = self.path / _METADATA
        present = sorted((p for p in self.path.iterdir() if p.suffix in _SUFFIXES), key=_natural)
        if not metadata.is_file():
            if not present:
                images = open_image_folder(self.path, self._camera)
                if images is not None:
                    self.of_images, self.timed = True, images.timed
                    self._storages.append(images)
                    self.notes += images.said
                    return []
                inside = sorted(p.name for p in self.path.iterdir() if p.is_dir() and any(p.glob("*.*")))
                kinds = Counter(p.suffix.lower() for p in self.path.iterdir() if p.suffix.lower() in _OTHERS)
                kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
                raise RecordingError(
                    f"{self.path} is not a readable recording: it holds neither {_METADATA} nor a file of "
                    f"{', '.join(_SUFFIXES)} nor images (rgb/, depth/, cam_K.txt); name the folder that ros2 bag record wrote, or one of its files"
                    + (f" (in it are the folders {', '.join(inside[:5])})" if inside else "")
                    + (f"; of {kind}, of which it holds {count}: {_OTHERS[kind]}" if kind else "")
                    + (
                        "; a BOP data set is for evaluate bop, or name one of its scenes"
                        if any(self.path.glob("models*"))
                        else ""
                    )
                )
            if any(p.suffix in (".mcap", ".db3") for p in present):
                self.notes.append(
                    f"{self.path}: {_METADATA} is missing, its files are read by name; ros2 bag reindex {self.path.name} writes it"
                )
            return present
        try:
            information = _information(metadata)
            names = [PurePath(str(name)).name for name in information["relative_file_paths"]]
            self.custom = {str(k): str(v) for k, v in (information.get("custom_data") or {}).items()}
            self._expected = {
                str(t["topic_metadata"]["name"]): int(t["message_count"])
                for t in information["topics_with_message_count"]
            }
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            self.notes.append(
                f"{metadata} cannot be used ({reason}), the files beside it are read by name; "
                f"ros2 bag reindex {self.path.name} writes it anew"
            )
            names = [p.name for p in present]
        missing = [name for name in names if not (self.path / name).is_file()]
        if missing:
            self._incomplete = True
            self.notes.append(
                f"{metadata} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} missing: copy "
                f"{'it' if len(missing) == 1 else 'them'} too, or ros2 bag reindex {self.path.name}"
            )
        found = [self.path / name for name in names if name not in missing]
        if not found:
            # A renamed folder's files, or those of a recording that was compressed afterwards.
            found = present
        if not found:
            raise RecordingError(self.notes[-1] if self.notes else f"{metadata} names no file: nothing was recorded")
        other = [p.name for p in present if p not in found]
        if other:
            self.notes.append(f"{metadata} does not name {', '.join(other)}: not read; name a file to read it")
        return found

    def _open(self, file: Path) -> Storage:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
        if head.startswith(ZSTD_MAGIC):
            return self._open(self._unpack(file))
        for kind, magic, _ in _KINDS:
            if head.startswith(magic):
                return kind(file)
        if reason := stand_in(head) if head else "":
            raise RecordingError(f"{file} cannot be read: {reason}")
        for kind, magic, suffixes in _KINDS:
            if head and file.suffix in suffixes:
                self.notes.append(f"{file}: its first bytes are {bytes(head[: len(magic)])!r} instead of {magic!r}")
                return kind(file)
        if not head:
            raise RecordingError(f"{file} is empty: nothing was recorded, or copying it has failed; copy it again")
        if file.suffix.lower() in _OTHERS:
            raise RecordingError(f"{file}: {file.suffix} is not read; {_OTHERS[file.suffix.lower()]}")
        raise RecordingError(
            f"{file} is not a readable recording: it begins with {bytes(head[:12])!r}, neither as MCAP nor as sqlite3 nor "
            "as a ROS 1 bag; copy it again, or name another file"
        )

    def _unpack(self, file: Path) -> Path:
        """The file without its zstd compression, in a temporary folder; as much as can be had of a cut one."""
        folder = tempfile.TemporaryDirectory(prefix="recording_")
        self._unpacked.append(folder)
        target = Path(folder.name, file.stem)
        self._shown[str(target)] = str(file)
        # Not copy_stream or stream_reader: they take a file that is cut off for a whole one (findings/zstandard-cut-frame-reads-as-whole.sh).
        unpack, why = zstandard.ZstdDecompressor().decompressobj(), "cut off"
        with file.open("rb") as source, target.open("wb") as out:
            try:
                while part := source.read(_COPY):
                    out.write(unpack.decompress(part))
                    if unpack.eof:
                        why = ""
                        break
            except zstandard.ZstdError as error:
                why = f"damaged ({error})"
        if why:
            self.notes.append(f"{file} is {why}: what comes before is read; copy it again")
            self._incomplete = True
        if not target.stat().st_size:
            raise RecordingError(
                f"{file}: nothing of this zstd file can be read, it is damaged or cut off; copy it again"
            )
        return target

    def _described(self, storage: Storage, said: list[str]) -> list[str]:
        """One sentence of what is wrong in a file."""
        more = f" (and {len(said) - 1} more places)" if len(said) > 1 else ""
        return [self._show(f"{storage.path}: {said[0]}{more}; {storage.remedy}")] if said else []

    def _show(self, text: str) -> str:
        """The name of the user's file instead of that of its unpacked copy."""
        for copy, name in self._shown.items():
            text = text.replace(copy, name)
        return text

    def _compare(self) -> None:
        """metadata.yaml against what the files hold: it is written last, and edited by hand."""
        for name, count in self._expected.items():
            held = self.topics.get(name)
            if held is None:
                if count:
                    self.notes.append(f"{self.path / _METADATA} says {count} messages on {name}, the files hold none")
            elif held.count is not None and held.count != count and not self._damaged:
                self.notes.append(
                    f"{self.path / _METADATA} says {count} messages on {name}, the files hold {held.count}: those are read"
                )

    def expected(self, topic: str) -> int | None:
        """How many messages were recorded: as the files say, or metadata.yaml where they are damaged."""
        counts = [n for n in (self.topics[topic].count, self._expected.get(topic) if self._damaged else None) if n]
        return max(counts, default=None)

    def messages(self, topics: Collection[str], head: int | None = None, lost: Lost | None = None) -> Iterator[Message]:
        """Messages of the topics, file after file; ``lost`` is told at the end what could not be read."""
        seen: Counter[str] = Counter()
        damage: list[str] = []
        for storage in self._storages:
            reading = Reading()
            wanted = [t for t in topics if t in storage.topics and storage.topics[t].type == self.topics[t].type]
            yield from storage.messages(wanted, head, reading)
            seen += reading.seen
            damage += self._described(storage, reading.damage)
        if lost is not None:
            lost.sentences += damage
            lost.messages += Counter({t: n - seen[t] for t in topics if (n := self.expected(t) or 0) > seen[t]})


def _information(metadata: Path) -> dict[str, Any]:
    tree = yaml.load(metadata.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    information: dict[str, Any] = tree["rosbag2_bagfile_information"]
    for topic in information["topics_with_message_count"]:
        topic["topic_metadata"]["type"] = ros2_type(str(topic["topic_metadata"]["type"]))
    return information


def _natural(path: Path) -> list[tuple[int, str]]:
    """bag_2 before bag_10."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
