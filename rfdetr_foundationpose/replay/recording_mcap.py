"""MCAP files (https://mcap.dev/spec), whole or damaged: with an index by its chunks, without one by a scan."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import yaml
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, Metadata, Schema, Statistics

from .recording_foxglove import translator
from .recording_storage import ZSTD_MAGIC, Message, Reading, RecordingError, Topic, decompress, readable_size, ros2_type

MAGIC = b"\x89MCAP0\r\n"
T = TypeVar("T")
_FRAME = struct.Struct("<BQ")  # opcode, length
_CHUNK = struct.Struct("<QQQII")  # start, end, uncompressed size, CRC, length of the compression's name
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_FOOTER = 8 + _FRAME.size + 20
# A record that is no chunk, message or attachment is small; a larger one is damage.
_LARGEST_RECORD = 1 << 26
_LARGEST_CHUNK = 1 << 30
# A message, chunk or index of messages of less than 4 GB: their numbers, and a length whose upper half is empty.
_PLAUSIBLE = re.compile(rb"[\x05-\x07](?!\0{4}).{4}\0{4}", re.DOTALL)
_WINDOW = 1 << 22


class _Record(NamedTuple):
    offset: int
    opcode: int
    start: int
    length: int


class _Broken(Exception):
    """The file makes no sense from here on."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class McapFile:
    """See ``recording_storage.Storage``. Raises RecordingError for a file that holds no channel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.notes: list[str] = []
        self.custom: dict[str, str] = {}
        self.remedy = f"repair it by: mcap recover {path.name} -o repaired.mcap"
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._translators: dict[int, Callable[[bytes], bytes]] = {}
        self._pieces: list[_Record] = []  # chunks, and messages beside them
        self._size = path.stat().st_size
        self._reached = 0  # how far in the file the last plain chunk was read
        counts: Counter[int] = Counter()
        with path.open("rb") as file:
            try:
                indexed = self._read_summary(file, counts)
            except (ValueError, _Broken) as error:
                indexed = False
                self.notes.append(f"the index at its end is damaged ({error})")
            if not indexed:
                self._forget(counts)
                self._scan(file, counts)
        for key, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            name = ros2_type(schema.name) if schema else ""
            encoding = channel.message_encoding
            mirrored = translator(schema.name, encoding) if schema else None
            if mirrored is not None:
                name, self._translators[key] = mirrored
                encoding = "cdr"
            topic = self.topics.setdefault(channel.topic, Topic(name, encoding, 0))
            topic.count = (topic.count or 0) + counts[key]
        if not self._channels and not self.notes:
            raise RecordingError(f"{path} holds no topic: nothing was recorded; were the topics' names right?")
        if not self._channels:
            raise RecordingError(
                f"{path}: no topic can be read from this MCAP file of {readable_size(self._size)}"
                + "".join(f", {note}" for note in self.notes)
                + "; copy it again or record anew"
            )

    def _forget(self, counts: Counter[int]) -> None:
        self._schemas.clear()
        self._channels.clear()
        self._pieces.clear()
        counts.clear()

    def _read_summary(self, file: BinaryIO, counts: Counter[int]) -> bool:
        """Topics, counts and chunks from the summary section; False where there is none, or no chunk in it."""
        if self._size < len(MAGIC) + _FOOTER:
            return False
        file.seek(self._size - _FOOTER)
        tail = file.read(_FOOTER)
        if tail[-8:] != MAGIC or tail[0] != Opcode.FOOTER:
            return False
        footer = _parse(Footer.read, tail[_FRAME.size : -8])
        if footer.summary_start == 0:
            return False
        if footer.summary_crc:
            file.seek(footer.summary_start)
            covered = file.read(max(self._size - footer.summary_start - 12, 0))
            if zlib.crc32(covered) != footer.summary_crc:
                raise ValueError("its checksum does not fit")
        for record in self._records(file, footer.summary_start, self._size - _FOOTER):
            body = self._small(file, record)
            if record.opcode == Opcode.STATISTICS:
                counts.update(_parse(Statistics.read, body).channel_message_counts)
            elif record.opcode == Opcode.CHUNK_INDEX:
                index = _parse(ChunkIndex.read, body)
                start = index.chunk_start_offset + _FRAME.size
                length = index.chunk_length - _FRAME.size
                self._pieces.append(_Record(index.chunk_start_offset, Opcode.CHUNK, start, length))
            elif record.opcode == Opcode.METADATA_INDEX:
                self._read_metadata(file, int.from_bytes(body[:8], "little"))
            else:
                self._learn(record.opcode, body)
        self._pieces.sort()
        for piece in self._pieces:
            file.seek(piece.offset)
            if file.read(1) != bytes([Opcode.CHUNK]):
                raise ValueError(f"no chunk is at byte {piece.offset}")
        return bool(self._pieces and self._channels and counts)

    def _read_metadata(self, file: BinaryIO, offset: int) -> None:
        """rosbag2 keeps a copy of metadata.yaml in the file."""
        with suppress(_Broken):
            record = next(self._records(file, offset, self._size), None)
            if record is not None and record.opcode == Opcode.METADATA:
                self._take_metadata(self._small(file, record))

    def _take_metadata(self, body: bytes) -> None:
        try:
            held = _parse(Metadata.read, body).metadata.get("serialized_metadata", "")
            tree: dict[str, Any] = yaml.safe_load(held) or {}
            custom = tree.get("rosbag2_bagfile_information", tree).get("custom_data") or {}
            self.custom = {str(k): str(v) for k, v in custom.items()}
        except (yaml.YAMLError, ValueError, AttributeError):
            return  # of no use for the images

    def _learn(self, opcode: int, body: bytes | memoryview) -> None:
        if opcode == Opcode.SCHEMA:
            schema = _parse(Schema.read, body)
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = _parse(Channel.read, body)
            self._channels[channel.id] = channel

    def _scan(self, file: BinaryIO, counts: Counter[int]) -> None:
        """The same from the records themselves, past what makes no sense."""
        offset, data, ended = len(MAGIC), True, False
        while offset < self._size:
            try:
                for record in self._records(file, offset, self._size):
                    if data and record.opcode in (Opcode.CHUNK, Opcode.MESSAGE):
                        self._pieces.append(record)
                        self._count(file, record, counts)
                    elif record.opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                        self._note(record.opcode, self._small(file, record), counts)
                    elif record.opcode == Opcode.METADATA:
                        self._take_metadata(self._small(file, record))
                    elif record.opcode == Opcode.DATA_END:
                        data = False
                    ended = record.opcode == Opcode.FOOTER
                break
            except _Broken as broken:
                # Of a plain chunk that is cut off the messages were read already.
                following = self._resume(file, max(broken.offset + 1, self._reached))
                lost = "what comes after is lost" if following is None else f"reading goes on at {following}"
                self.notes.append(f"{broken} at byte {broken.offset} of {self._size}, {lost}")
                offset = self._size if following is None else following
        if not ended and not self.notes:
            self.notes.append("it has no end: the recorder did not close it")

    def _count(self, file: BinaryIO, record: _Record, counts: Counter[int]) -> None:
        if record.opcode == Opcode.MESSAGE:
            file.seek(record.start)
            self._note(record.opcode, file.read(_MESSAGE.size), counts)
        else:
            for opcode, body in self._inner(file, record, Reading(), counting=True):
                self._note(opcode, body, counts)

    def _resume(self, file: BinaryIO, start: int) -> int | None:
        """Where, from ``start`` on, records make sense again: three in a row do."""
        for window in range(start, self._size, _WINDOW):
            file.seek(window)
            for found in _PLAUSIBLE.finditer(file.read(_WINDOW + _FRAME.size)):
                try:
                    chain = list(islice(self._records(file, window + found.start(), self._size), 3))
                except _Broken:
                    continue
                if len(chain) == 3 and all(r.opcode <= Opcode.DATA_END for r in chain):
                    return chain[0].offset
        return None

    def _note(self, opcode: int, body: bytes | memoryview, counts: Counter[int]) -> None:
        if opcode == Opcode.MESSAGE:
            if len(body) >= _MESSAGE.size:
                counts[_MESSAGE.unpack_from(body)[0]] += 1
        else:
            with suppress(ValueError):  # a channel that cannot be read has no messages for us
                self._learn(opcode, body)

    def _records(self, file: BinaryIO, start: int, end: int) -> Iterator[_Record]:
        """Records between two offsets. Raises _Broken where one is cut off or impossible."""
        offset = start
        while offset < end:
            file.seek(offset)
            frame = file.read(_FRAME.size)
            if len(frame) < _FRAME.size:
                raise _Broken(offset, "cut off")
            opcode, length = _FRAME.unpack(frame)
            if opcode == 0:
                raise _Broken(offset, "no record (the file may be copied in part)")
            cut = offset + _FRAME.size + length > self._size
            # Of a chunk that is cut off the beginning can be read.
            if not cut or opcode == Opcode.CHUNK:
                yield _Record(offset, opcode, offset + _FRAME.size, length)
            if cut:
                raise _Broken(offset, "cut off")
            if opcode == Opcode.FOOTER:
                return
            offset += _FRAME.size + length

    def _small(self, file: BinaryIO, record: _Record) -> bytes:
        if record.length > _LARGEST_RECORD:
            raise _Broken(record.offset, f"a record of {readable_size(record.length)}")
        file.seek(record.start)
        return file.read(record.length)

    def messages(self, topics: Collection[str], head: int | None, reading: Reading) -> Iterator[Message]:
        names = {key: channel.topic for key, channel in self._channels.items() if channel.topic in topics}
        with self.path.open("rb") as file:
            for opcode, body in self._everything(file, reading):
                if opcode != Opcode.MESSAGE or len(body) < _MESSAGE.size:
                    continue
                channel, _, time, _ = _MESSAGE.unpack_from(body)
                topic = names.get(channel)
                if topic is not None:
                    reading.seen[topic] += 1
                    if channel in self._translators:
                        try:
                            yield Message(topic, time, self._translators[channel](bytes(body[_MESSAGE.size :])))
                        except ValueError as error:
                            yield Message(topic, time, b"")
                            reading.damage.append(f"a message of {topic} is damaged ({error})")
                        continue
                    end = None if head is None else _MESSAGE.size + head
                    if body[_MESSAGE.size : _MESSAGE.size + 4] == ZSTD_MAGIC and self.topics[topic].encoding == "cdr":
                        yield Message(topic, time, _unpacked(body[_MESSAGE.size :], topic, reading)[:head])
                    else:
                        yield Message(topic, time, bytes(body[_MESSAGE.size : end]))

    def _everything(self, file: BinaryIO, reading: Reading) -> Iterator[tuple[int, bytes | memoryview]]:
        """Opcode and content of every record in chunks and, where there are such, beside them."""
        for piece in self._pieces:
            if piece.opcode == Opcode.CHUNK:
                yield from self._inner(file, piece, reading)
            else:
                file.seek(piece.start)
                yield piece.opcode, file.read(piece.length)

    def _inner(
        self, file: BinaryIO, chunk: _Record, reading: Reading, *, counting: bool = False
    ) -> Iterator[tuple[int, memoryview]]:
        """Opcode and content of the records of one chunk, up to where it is damaged.

        Messages of a chunk whose checksum is wrong only for counting.
        """
        try:
            content, plain, wrong, trusted = self._content(file, chunk)
        except (ValueError, struct.error) as error:
            reading.damage.append(f"the chunk at byte {chunk.offset} is damaged ({error})")
            return
        at = 0
        while at + _FRAME.size <= len(content):
            opcode, length = _FRAME.unpack_from(content, at)
            at += _FRAME.size
            if at + length > len(content):
                wrong = wrong or "a record is cut off"
                break
            if trusted or counting or opcode != Opcode.MESSAGE:
                yield opcode, content[at : at + length]
            at += length
        if plain:
            self._reached = plain + at
        if wrong:
            reading.damage.append(f"the chunk at byte {chunk.offset} is damaged ({wrong})")

    def _content(self, file: BinaryIO, chunk: _Record) -> tuple[memoryview, int, str, bool]:
        """Decompressed content, where it lies in the file (0: it is compressed), what is wrong with it, and whether images
        in it can be trusted. Raises ValueError."""
        file.seek(chunk.offset)
        record = file.read(_FRAME.size + min(chunk.length, _LARGEST_CHUNK))
        if not record or record[0] != Opcode.CHUNK:
            raise ValueError("no chunk is there")
        body = memoryview(record)[_FRAME.size :]
        _, _, size, crc, named = _CHUNK.unpack_from(body)
        at = _CHUNK.size + named
        if at + 8 > len(body):
            raise ValueError("its head is cut off")
        compression = bytes(body[_CHUNK.size : at]).decode("utf-8", "replace")
        (length,) = struct.unpack_from("<Q", body, at)
        packed = bytes(body[at + 8 : at + 8 + length])
        content, wrong = decompress(packed, compression)
        if not wrong and len(packed) < length:
            wrong = "cut off"
        if not wrong and len(content) != size:
            wrong = f"{len(content)} of {size} bytes"
        trusted = bool(wrong) or not crc or zlib.crc32(content) == crc
        lies = 0 if compression else chunk.start + at + 8
        return memoryview(content), lies, wrong or ("" if trusted else "its checksum does not fit"), trusted


def _unpacked(packed: bytes | memoryview, topic: str, reading: Reading) -> bytes:
    """A message that rosbag2 compressed by itself (its compression mode "message"); CDR never begins as zstd does."""
    content, why = decompress(bytes(packed), "zstd")
    if why:
        reading.damage.append(f"a message of {topic} is damaged ({why})")
    return content


def _parse(read: Callable[[ReadDataStream], T], body: bytes | memoryview) -> T:
    """A record by mcap's own class. Raises ValueError for a damaged one."""
    try:
        return read(ReadDataStream(io.BytesIO(body)))
    except (McapError, struct.error, ValueError, MemoryError, OverflowError) as error:
        raise ValueError(f"a record is damaged: {type(error).__name__}") from None
