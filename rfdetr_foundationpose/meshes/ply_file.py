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
from collections.abc import Mapping, Sequence
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


def _take(element: Element, table: NDArray[np.void]) -> None:
    """Set the numbers and lists of an element from rows of ``_row_type``; copies, so that the file need not stay open."""
    for i, p in enumerate(element.properties):
        values = np.array(table[f"v{i}"], p.type)
        if p.count is None:
            element.numbers[p.name] = values
        else:
            element.lists[p.name] = Lists(np.full(element.rows, values.shape[1]), values.reshape(-1))


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
        table = np.frombuffer(self.data, row, element.rows, self.at) if size else np.zeros(element.rows, row)
        if any((table[f"c{i}"] != length).any() for i, length in lengths.items()):
            return False
        if keep:
            _take(element, table)
        self.at += size
        return True

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
        text = np.frombuffer(data, np.uint8)[start:]
        self.ends = np.flatnonzero((text == 10) | (text == 13)) + start
        if not len(text) or text[-1] not in (10, 13):
            self.ends = np.append(self.ends, len(data))
        begins = np.concatenate([[start], self.ends[:-1] + 1])
        full = self.ends > begins
        self.begins, self.ends = begins[full], self.ends[full]

    def read(self, elements: Sequence[Element], wanted: Sequence[str]) -> None:
        line = 0
        if sum(e.rows for e in elements) > len(self.ends):
            self._free_form(elements)
            return
        for element in elements:
            if element.name in wanted and element.rows:
                block = self.data[self.begins[line] : self.ends[line + element.rows - 1]]
                self._element(element, block)
            line += element.rows

    def _free_form(self, elements: Sequence[Element]) -> None:
        """Of fewer lines than rows: the numbers in their order, however they are broken into lines."""
        values = _numbers(self.data[self.begins[0] : self.ends[-1]]) if len(self.ends) else np.zeros(0)
        for element in elements:
            values = values[self._fill(element, values) :]

    def _element(self, element: Element, block: bytes) -> None:
        if self._same_lengths(element, block):
            return
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

    def _same_lengths(self, element: Element, block: bytes) -> bool:
        """Read an element whose rows are all of one form; False where they are not, or numbers are written otherwise."""
        words, lengths, at = block[: block.find(b"\n") % len(block)].split(), {}, 0
        try:
            for i, p in enumerate(element.properties):
                if p.count is not None:
                    lengths[i] = int(words[at])
                    at += 1 + lengths[i]
                else:
                    at += 1
            if at != len(words) or min(lengths.values(), default=0) < 0:
                return False
            row = _row_type(element, lengths, "<")
            table = np.loadtxt(io.BytesIO(block), row, comments=None, ndmin=1)  # type: ignore[call-overload]
        except (ValueError, IndexError, OverflowError):
            return False
        if len(table) != element.rows or any((table[f"c{i}"] != length).any() for i, length in lengths.items()):
            return False
        _take(element, table)
        return True

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
