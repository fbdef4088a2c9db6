"""PLY files: header and elements, ASCII and binary, lists of any lengths.

The libraries that read PLY refuse binary lists of different lengths (trimesh) or make an object of each list (plyfile,
meshio), which takes a scan's faces minutes and gigabytes.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .raw import MeshError

_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
    "float32": "f4",
    "float64": "f8",
}
_STRUCT = dict(zip(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"], "bBhHiIqQfd", strict=True))
_PIECE = 1 << 21
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Property:
    """A number of each row or, with the type of its ``count``, a list of them."""

    name: str
    type: np.dtype
    count: np.dtype | None = None


@dataclass(frozen=True)
class Lists:
    """counts: (rows,) lengths; values: all lists, one after the other."""

    counts: NDArray[np.int64]
    values: NDArray[np.generic]


@dataclass
class Element:
    """numbers: name -> (rows,); lists: name -> Lists."""

    name: str
    rows: int
    properties: list[Property] = field(default_factory=list)
    numbers: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    lists: dict[str, Lists] = field(default_factory=dict)


@dataclass(frozen=True)
class PlyFile:
    """comments: without the word. elements by name."""

    comments: list[str]
    elements: dict[str, Element]


def read(path: Path, wanted: Sequence[str]) -> PlyFile:
    """The ``wanted`` elements of a file. Raises MeshError."""
    with path.open("rb") as file:
        order, elements, comments, start = _header(file.read(1 << 20))
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed when the last array over it is gone
    last = max((i for i, e in enumerate(elements) if e.name in wanted), default=-1)
    (_Ascii if order == "" else _Binary)(data, start, order).read(elements[: last + 1], wanted)
    return PlyFile(comments, {e.name: e for e in elements if e.name in wanted})


def _header(head: bytes) -> tuple[str, list[Element], list[str], int]:
    end = re.search(rb"(?:^|[\r\n])end_header[ \t]*(\r\n|\n|\r)", head)
    if not head.startswith(b"ply") or end is None:
        raise MeshError("its PLY header is damaged or has no end_header")
    order = None
    elements: list[Element] = []
    comments = []
    for line in head[: end.start()].decode("utf-8", "replace").splitlines()[1:]:
        words = line.split()
        try:
            if not words:
                continue
            words[0] = words[0].lower()
            if words[0] == "format":
                order = _ORDERS[words[1].lower()]
            elif words[0] in ("comment", "obj_info"):
                comments.append(line.strip()[len(words[0]) :].strip())
            elif words[0] == "element":
                elements.append(Element(words[1].lower(), int(words[2])))
                if elements[-1].rows < 0:
                    raise ValueError
            elif words[0] == "property" and words[1].lower() == "list":
                count, kind = np.dtype(_TYPES[words[2].lower()]), np.dtype(_TYPES[words[3].lower()])
                elements[-1].properties.append(Property(words[4].lower(), kind, count))
            elif words[0] == "property":
                elements[-1].properties.append(Property(words[2].lower(), np.dtype(_TYPES[words[1].lower()])))
            elif elements:  # before the first element, a comment may go on without the word
                raise ValueError
        except (KeyError, IndexError, ValueError):
            raise MeshError(f"its PLY header has a line that is not understood: {line.strip()[:80]!r}") from None
    if order is None:
        raise MeshError("its PLY header says no format")
    return order, elements, comments, end.end()


def _row_type(element: Element, lengths: Mapping[int, int], order: Literal["<", ">"]) -> np.dtype:
    """Of rows whose lists all have these ``lengths``: v0, v1, ... are the properties, c0, ... the counts of lists."""
    fields: list[tuple[object, ...]] = []
    for i, p in enumerate(element.properties):
        kind = p.type.newbyteorder(order)
        if p.count is None:
            fields.append((f"v{i}", kind))
        else:
            fields += [(f"c{i}", p.count.newbyteorder(order)), (f"v{i}", kind, (lengths[i],))]
    return np.dtype(fields)  # type: ignore[arg-type]


def _even(table: NDArray[np.void], lengths: Mapping[int, int]) -> bool:
    """Whether the lists of these rows have the ``lengths`` that their type says."""
    return not any((table[f"c{i}"] != length).any() for i, length in lengths.items())


def _take(element: Element, lengths: Mapping[int, int], tables: Iterable[NDArray[np.void]]) -> bool:
    """Set the numbers and lists of an element from ``tables`` of the type ``_row_type`` that follow each other; False where
    its lists have other lengths."""
    columns = []
    for i, p in enumerate(element.properties):
        shape = element.rows if p.count is None else (element.rows, lengths[i])
        columns.append(np.empty(shape, p.type))
    first = 0
    for table in tables:
        if not _even(table, lengths):
            return False
        for i, column in enumerate(columns):
            column[first : first + len(table)] = table[f"v{i}"]
        first += len(table)
    for i, (p, column) in enumerate(zip(element.properties, columns, strict=True)):
        if p.count is None:
            element.numbers[p.name] = column
        else:
            each = np.broadcast_to(np.int64(lengths[i]), element.rows)  # takes no memory
            element.lists[p.name] = Lists(each, column.reshape(-1))
    return True


def _give_back(data: mmap.mmap, start: int, length: int) -> None:
    """The pages of a file that were read; they count as this process's memory otherwise."""
    if hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED, max(start, 0) // mmap.PAGESIZE * mmap.PAGESIZE, length)


def _order(sign: str) -> Literal["<", ">"]:
    return ">" if sign == ">" else "<"


def _cut(element: Element) -> MeshError:
    return MeshError(f"it ends within its {element.rows} rows of {element.name!r}; is it cut off?")


class _Binary:
    def __init__(self, data: mmap.mmap, start: int, order: str) -> None:
        self.data, self.at, self.order = data, start, order

    def read(self, elements: Sequence[Element], wanted: Sequence[str]) -> None:
        for element in elements:
            if not self._same_lengths(element, element.name in wanted):
                self._any_lengths(element)

    def _same_lengths(self, element: Element, keep: bool) -> bool:
        """Read an element whose lists all have the lengths of the first row; False where they do not."""
        lengths, at = {}, self.at
        for i, p in enumerate(element.properties):
            length = 1
            if p.count is not None:
                counter = p.count.newbyteorder(_order(self.order))
                if at + counter.itemsize > len(self.data):
                    return element.rows == 0
                length = int(np.frombuffer(self.data, counter, 1, at)[0]) if element.rows else 0
                if not 0 <= length <= len(self.data):
                    return False
                at += counter.itemsize
                lengths[i] = length
            at += p.type.itemsize * length
        row = _row_type(element, lengths, _order(self.order))
        size = row.itemsize * element.rows
        if self.at + size > len(self.data):
            if not lengths:
                raise _cut(element)
            return False
        tables = self._tables(row, element.rows)
        if not (_take(element, lengths, tables) if keep else all(_even(table, lengths) for table in tables)):
            return False
        self.at += size
        return True

    def _tables(self, row: np.dtype, rows: int) -> Iterator[NDArray[np.void]]:
        """Rows of one type from here on, in pieces whose pages of the file are given back once they are read."""
        step = max(_PIECE // max(row.itemsize, 1), 1)
        for first in range(0, rows if row.itemsize else 0, step):
            at = self.at + first * row.itemsize
            yield np.frombuffer(self.data, row, min(step, rows - first), at)
            _give_back(self.data, at, step * row.itemsize)

    def _any_lengths(self, element: Element) -> None:
        """Walk from list to list, then gather all of one length at once."""
        at, end = self.at, len(self.data)
        starts = {i: np.zeros(element.rows, np.int64) for i in range(len(element.properties))}
        counts = {i: np.zeros(element.rows, np.int64) for i, p in enumerate(element.properties) if p.count is not None}
        steps = [
            (i, p.type.itemsize, None if p.count is None else struct.Struct(self.order + _STRUCT[p.count.str[1:]]))
            for i, p in enumerate(element.properties)
        ]
        if element.rows > end - at:
            raise _cut(element)
        for row in range(element.rows):
            for i, size, counter in steps:
                if counter is not None:
                    if at + counter.size > end:
                        raise _cut(element)
                    (length,) = counter.unpack_from(self.data, at)
                    at += counter.size
                    if length < 0:
                        raise MeshError(f"row {row} of {element.name!r} has a list of {length} entries")
                    counts[i][row] = length
                    size *= int(length)
                starts[i][row] = at
                at += size
            if at > end:
                raise _cut(element)
        self.at = at
        raw = np.frombuffer(self.data, np.uint8)
        for i, p in enumerate(element.properties):
            kind = p.type.newbyteorder(_order(self.order))
            lengths = counts.get(i, np.ones(element.rows, np.int64))
            values = np.zeros(int(lengths.sum()), p.type)
            first = np.cumsum(lengths) - lengths
            for length in np.unique(lengths).tolist():
                rows = np.flatnonzero(lengths == length)
                if length:
                    found = raw[starts[i][rows, None] + np.arange(length * kind.itemsize)]
                    values[first[rows, None] + np.arange(length)] = np.ascontiguousarray(found).view(kind)
            if p.count is None:
                element.numbers[p.name] = values
            else:
                element.lists[p.name] = Lists(lengths, values)


class _Ascii:
    """A row a line."""

    def __init__(self, data: mmap.mmap, start: int, order: str) -> None:
        self.data = data
        found = [np.array([start - 1])]
        for first in range(start, len(data), _PIECE):
            text = np.frombuffer(data, np.uint8, min(_PIECE, len(data) - first), first)
            found.append(np.flatnonzero((text == 10) | (text == 13)) + first)
            del text
            _give_back(data, first, _PIECE)
        if len(data) > start and data[-1:] not in (b"\n", b"\r"):
            found.append(np.array([len(data)]))
        ends = np.concatenate(found)
        found.clear()
        full = np.diff(ends) > 1
        self.ends = np.concatenate(
            [ends[:1], ends[1:][full]]
        )  # before the first line, and of every line that holds something

    def read(self, elements: Sequence[Element], wanted: Sequence[str]) -> None:
        line = 0
        if sum(e.rows for e in elements) >= len(self.ends):
            self._free_form(elements)
            return
        for element in elements:
            if element.name in wanted and element.rows:
                self._element(element, line)
            line += element.rows

    def _lines(self, first: int, last: int) -> bytes:
        return self.data[self.ends[first] + 1 : self.ends[last]].lstrip(b"\r\n")

    def _free_form(self, elements: Sequence[Element]) -> None:
        """Of fewer lines than rows: the numbers in their order, however they are broken into lines."""
        values = _numbers(self._lines(0, -1))
        for element in elements:
            values = values[self._fill(element, values) :]

    def _element(self, element: Element, line: int) -> None:
        if self._same_lengths(element, line):
            return
        block = self._lines(line, line + element.rows)
        values = _numbers(block)
        if len(values) != _word_count(block):
            raise MeshError(f"its rows of {element.name!r} hold text that is no number")
        self._fill(element, values)

    def _fill(self, element: Element, values: NDArray[np.float64]) -> int:
        """Set the properties of an element from the numbers that begin with it; returns how many it takes."""
        starts, counts, taken = self._walk(element, values)
        for i, p in enumerate(element.properties):
            if p.count is None:
                element.numbers[p.name] = values[starts[i]].astype(p.type)
                continue
            lengths = counts[i]
            inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            element.lists[p.name] = Lists(lengths, values[np.repeat(starts[i], lengths) + inside].astype(p.type))
        return taken

    def _same_lengths(self, element: Element, line: int) -> bool:
        """Read an element whose rows are all of one form; False where they are not, or numbers are written otherwise."""
        words, lengths, at = self._lines(line, line + 1).split(), {}, 0
        try:
            for i, p in enumerate(element.properties):
                if p.count is not None:
                    lengths[i] = int(words[at])
                    at += 1 + lengths[i]
                else:
                    at += 1
            if at != len(words) or min(lengths.values(), default=0) < 0:
                return False
            return _take(element, lengths, self._tables(_row_type(element, lengths, "<"), line, element.rows))
        except (ValueError, IndexError, OverflowError):
            return False

    def _tables(self, row: np.dtype, line: int, rows: int) -> Iterator[NDArray[np.void]]:
        """Rows of one type, in pieces. Raises ValueError where they are no such rows."""
        step = max(_PIECE * rows // max(int(self.ends[line + rows] - self.ends[line]), 1), 1)
        for first in range(line, line + rows, step):
            last = min(first + step, line + rows)
            table = np.loadtxt(io.BytesIO(self._lines(first, last)), row, comments=None, ndmin=1)  # type: ignore[call-overload]
            if len(table) != last - first:
                raise ValueError
            yield table
            _give_back(self.data, int(self.ends[first]), int(self.ends[last] - self.ends[first]))

    def _walk(
        self, element: Element, values: NDArray[np.float64]
    ) -> tuple[dict[int, NDArray[np.int64]], dict[int, NDArray[np.int64]], int]:
        """Where each property of each row starts in ``values``, how long its lists are, and where they end."""
        rows = element.rows
        starts = {i: np.zeros(rows, np.int64) for i in range(len(element.properties))}
        counts = {i: np.zeros(rows, np.int64) for i, p in enumerate(element.properties) if p.count is not None}
        flat, at, end = values.tolist(), 0, len(values)
        lists = [(i, p.count is not None) for i, p in enumerate(element.properties)]
        for row in range(rows):
            for i, is_list in lists:
                length = 1
                if is_list:
                    if at >= end:
                        raise _cut(element)
                    length = int(flat[at])
                    at += 1
                    if length < 0:
                        raise MeshError(f"row {row} of {element.name!r} has a list of {length} entries")
                    counts[i][row] = length
                starts[i][row] = at
                at += length
            if at > end:
                raise _cut(element)
        return starts, counts, at


def _numbers(block: bytes) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of text that is no number: the caller counts
        try:
            return np.fromstring(block, sep=" ")  # type: ignore[no-any-return]
        except ValueError:
            return np.zeros(0)


def _word_count(block: bytes) -> int:
    blank = np.frombuffer(block, np.uint8) <= 32
    return int((blank[:-1] & ~blank[1:]).sum()) + int(len(blank) > 0 and not blank[0])
