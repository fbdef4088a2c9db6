"""ROS 1 bags (http://wiki.ros.org/Bags/Format/2.0), whole, without an index, or damaged: chunk by chunk."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .recording_storage import Message, Reading, RecordingError, Topic, decompress, readable_size, ros2_type

MAGIC = b"#ROSBAG V"
_VERSION = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 5, 6, 7
_LENGTH = struct.Struct("<I")
_LARGEST_HEADER = 1 << 16
_LARGEST_CHUNK_HEADER = 128
_WINDOW = 1 << 22


class _Record(NamedTuple):
    """offset: of the record in the file. start, length: of its content."""

    offset: int
    fields: dict[str, bytes]
    start: int
    length: int

    @property
    def op(self) -> int:
        return self.fields["op"][0] if self.fields.get("op") else -1

    def number(self, name: str) -> int:
        """Raises ValueError where the field is missing."""
        value = self.fields.get(name, b"")
        if len(value) not in (4, 8):
            raise ValueError(f"no field {name!r}")
        return int.from_bytes(value, "little")


class Bag1File:
    """See ``recording_storage.Storage``. Raises RecordingError for a file that holds no connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.custom: dict[str, str] = {}
        self.remedy = f"repair it by: rosbag reindex {path.name}"
        self.topics: dict[str, Topic] = {}
        self._size = path.stat().st_size
        self._names: dict[int, str] = {}
        self._chunks: list[int] = []
        with path.open("rb") as file:
            version = file.readline(64)
            if version.startswith(MAGIC) and version != _VERSION:
                shown = version.strip().decode("ascii", "replace")
                raise RecordingError(f"{path} is {shown!r}; bags of version 2.0 are read: convert it with rosbag fix")
            counts: Counter[int] = Counter()
            self._indexed = self._read_index(file, counts)
            if not self._indexed:
                self._names.clear()
                self.topics.clear()
                self._chunks.clear()
                counts.clear()
                self._scan(file, counts)
        for key, name in self._names.items():
            topic = self.topics[name]
            topic.count = (topic.count or 0) + counts[key]
        if not self._names:
            raise RecordingError(
                f"{path}: no topic can be read from this ROS 1 bag of {readable_size(self._size)}"
                + "".join(f", {note}" for note in self.notes)
                + f"; copy it again, or {self.remedy}"
            )

    def _read_index(self, file: BinaryIO, counts: Counter[int]) -> bool:
        """Connections, counts and chunks from the index at the end; False where there is none that makes sense."""
        try:
            records = self._records(file, len(_VERSION), self._size)
            bag = next(records, None)
            if bag is None or bag.op != _BAG:
                raise ValueError("the file does not begin with its header")
            position = bag.number("index_pos")
            if bag.fields.get("encryptor"):
                raise RecordingError(f"{self.path} is encrypted ({bag.fields['encryptor']!r}); decrypt it first")
            if not len(_VERSION) < position < self._size:
                self.notes.append("it has no index: the recorder did not close it")
                return False
            for record in self._records(file, position, self._size):
                if record.op == _CONNECTION:
                    self._connect(record, self._content(file, record))
                elif record.op == _CHUNK_INFO:
                    self._chunks.append(record.number("chunk_pos"))
                    for key, count in struct.iter_unpack("<II", self._content(file, record)):
                        counts[key] += count
            self._chunks.sort()
            for position in self._chunks:
                if next(self._records(file, position, position + 1)).op != _CHUNK:
                    raise ValueError(f"no chunk is at byte {position}")
            whole = len(self._names) == bag.number("conn_count") and len(self._chunks) == bag.number("chunk_count")
        except (ValueError, struct.error) as error:
            if isinstance(error, RecordingError):
                raise
            self.notes.append(f"its index is damaged ({error})")
            return False
        if not whole:
            self.notes.append("its index is cut off")
        return whole

    def _scan(self, file: BinaryIO, counts: Counter[int]) -> None:
        offset: int | None = len(_VERSION)
        while offset is not None and offset < self._size:
            reached = offset
            try:
                for record in self._records(file, offset, self._size):
                    reached = record.offset
                    if record.op == _CONNECTION:
                        self._connect(record, self._content(file, record))
                    elif record.op == _CHUNK:
                        self._chunks.append(record.offset)
                        for fields, content in self._inner(file, record, Reading()):
                            self._count(fields, content, counts)
                return
            except (ValueError, struct.error) as error:
                offset = self._resume(file, reached + 4)
                lost = "what comes after is lost" if offset is None else f"reading goes on at {offset}"
                self.notes.append(f"{error}, {lost}")

    def _resume(self, file: BinaryIO, start: int) -> int | None:
        """Where the next chunk begins."""
        for window in range(start, self._size, _WINDOW):
            base = max(window - _LARGEST_CHUNK_HEADER, 0)
            file.seek(base)
            for found in re.finditer(rb"\x04\0\0\0op=\x05", file.read(_WINDOW + 2 * _LARGEST_CHUNK_HEADER)):
                for at in range(
                    base + found.start() - 4, max(start, base + found.start() - _LARGEST_CHUNK_HEADER) - 1, -1
                ):
                    with suppress(ValueError):
                        record = next(self._records(file, at, at + 1))
                        if record.op == _CHUNK and {"compression", "size"} <= set(record.fields):
                            return at
        return None

    def _count(self, record: _Record, content: memoryview, counts: Counter[int]) -> None:
        if record.op == _CONNECTION:
            self._connect(record, bytes(content))
        elif record.op == _MESSAGE:
            counts[record.number("conn")] += 1

    def _connect(self, record: _Record, content: bytes) -> None:
        key = record.number("conn")
        if key in self._names:
            return
        described = _fields(content)
        name = record.fields.get("topic", b"").decode("utf-8", "replace")
        name = "/".join(part for part in ("/" + name).split("/") if part)
        name = f"/{name}"
        self._names[key] = name
        self.topics.setdefault(name, Topic(ros2_type(described.get("type", b"").decode("utf-8", "replace")), "ros1", 0))

    def _records(self, file: BinaryIO, start: int, end: int) -> Iterator[_Record]:
        """Records between two offsets; the last one may be cut off. Raises ValueError where one is impossible."""
        offset = start
        while offset < end:
            file.seek(offset)
            (size,) = _unpack(file.read(4), offset)
            if not 0 < size <= _LARGEST_HEADER:
                raise ValueError(f"no record at byte {offset} of {self._size}")
            header = file.read(size)
            (length,) = _unpack(file.read(4), offset)
            record = _Record(offset, _fields(header), offset + 8 + size, length)
            if record.op < 0:
                raise ValueError(f"no record at byte {offset} of {self._size}")
            yield record
            offset = record.start + length
            if offset > self._size:
                raise ValueError(f"cut off at byte {self._size}")

    def _content(self, file: BinaryIO, record: _Record) -> bytes:
        file.seek(record.start)
        return file.read(min(record.length, self._size))

    def messages(self, topics: Collection[str], head: int | None, reading: Reading) -> Iterator[Message]:
        names = {key: name for key, name in self._names.items() if name in topics}
        with self.path.open("rb") as file:
            for offset in self._chunks:
                try:
                    chunk = next(self._records(file, offset, offset + 1))
                    if chunk.op != _CHUNK:
                        raise ValueError("no chunk is there")
                    for record, content in self._inner(file, chunk, reading):
                        name = names.get(record.number("conn")) if record.op == _MESSAGE else None
                        if name is not None:
                            reading.seen[name] += 1
                            seconds, nanoseconds = struct.unpack("<II", record.fields.get("time", b""))
                            yield Message(name, seconds * 1_000_000_000 + nanoseconds, bytes(content[:head]))
                except (ValueError, struct.error) as error:
                    reading.damage.append(f"the chunk at byte {offset} is damaged ({error})")

    def _inner(self, file: BinaryIO, chunk: _Record, reading: Reading) -> Iterator[tuple[_Record, memoryview]]:
        """The records of a chunk with their content, up to where it is damaged."""
        compression = chunk.fields.get("compression", b"").decode("ascii", "replace")
        packed = self._content(file, chunk)
        content, cut = decompress(packed, compression)
        if not cut and len(packed) < chunk.length:
            cut = "cut off"
        view = memoryview(content)
        at = 0
        while at + 4 <= len(view):
            (size,) = _LENGTH.unpack_from(view, at)
            start = at + 8 + size
            if start > len(view):
                break
            (length,) = _LENGTH.unpack_from(view, start - 4)
            if start + length > len(view):
                break
            yield _Record(at, _fields(view[at + 4 : at + 4 + size]), start, length), view[start : start + length]
            at = start + length
        if cut or at != len(view):
            reading.damage.append(f"the chunk at byte {chunk.offset} ends early ({cut or 'a record is cut off'})")


def _unpack(data: bytes, offset: int) -> tuple[int]:
    if len(data) < 4:
        raise ValueError(f"cut off at byte {offset}")
    return _LENGTH.unpack(data)


def _fields(header: bytes | memoryview) -> dict[str, bytes]:
    """name=value fields. Raises ValueError where one is longer than the header."""
    fields: dict[str, bytes] = {}
    at, data = 0, bytes(header)
    while at + 4 <= len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += 4
        if size == 0 or at + size > len(data):
            raise ValueError("a header is damaged")
        name, equals, value = data[at : at + size].partition(b"=")
        if not equals:
            raise ValueError("a header is damaged")
        fields[name.decode("ascii", "replace")] = value
        at += size
    return fields
