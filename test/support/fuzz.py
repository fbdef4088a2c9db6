"""Harmless damage, the same each time: what a broken disk, a cut copy or a careless edit makes of a file.

``make fuzz`` sets FUZZ_CASES to a large number; CI runs a few.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rfdetr_foundationpose.errors import UserError

CASES = int(os.environ.get("FUZZ_CASES", "0"))
LIMIT_SECONDS = 60


def cases(few: int) -> int:
    """How many cases to run: ``few`` in CI, FUZZ_CASES in the long form."""
    return CASES or few


def damaged(data: bytes, seed: int) -> tuple[bytes, str]:
    """A copy of ``data`` with one to three places damaged, and what was done."""
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice(_CHANGES)
        data = change(data, rng)
        done.append(change.__name__.strip("_"))
    return data, ", ".join(done)


def _span(data: bytes, rng: random.Random, largest: int = 4096) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, min(largest, max(len(data) // 4, 1))))


def _cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _end_of_zeros(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes(len(data) - at)


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _zeros(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def _leave_out(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _twice(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start, _ = _span(data, rng)
    return data[:start] + rng.randbytes(rng.randint(1, 64)) + data[start:]


def _large_number(data: bytes, rng: random.Random) -> bytes:
    """A length or an offset that is far too large."""
    start = rng.randrange(len(data) + 1)
    size = rng.choice((2, 4, 8))
    return data[:start] + rng.choice((b"\xff", b"\x7f", b"\x80")) * size + data[start + size :]


def _begin_anew(data: bytes, rng: random.Random) -> bytes:
    return data[rng.randrange(len(data) + 1) :] if rng.random() < 0.3 else _flip_bits(data[:64], rng) + data[64:]


_CHANGES = (
    *(_cut_off, _end_of_zeros, _flip_bits, _flip_bits, _overwrite, _zeros, _leave_out, _twice, _insert, _large_number),
    _begin_anew,
)


class Hang(Exception):
    """A case took longer than LIMIT_SECONDS."""


@contextmanager
def limited() -> Iterator[None]:
    """Raises Hang in the body when it takes too long; leaves pytest-timeout's own timer as it was."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no end after {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def outcome(run: Callable[[], str]) -> str:
    """What ``run`` says, or "one sentence" for a UserError of one line; other exceptions are the test's failure."""
    with limited():
        try:
            return run()
        except UserError as error:
            text = str(error)
            assert text and "\n" not in text, f"not one sentence: {text!r}"
            return "one sentence"


def try_seeds(name: str, count: int, damage: Callable[[int], str], run: Callable[[], str]) -> None:
    """``count`` times: ``damage`` spoils a file by a seed and says how, and ``run`` must end in a result or one sentence. Prints
    how many ended in what, as ``a.mcap: 120 frames, 80 one sentence``."""
    seen: Counter[str] = Counter()
    for seed in range(count):
        what = damage(seed)
        try:
            seen[outcome(run)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed} ({what}): {type(error).__name__}: {error}") from error
    print(f"{name}: " + ", ".join(f"{times} {what}" for what, times in seen.most_common()))


def damage_file(file: Path) -> Callable[[int], str]:
    """For ``try_seeds``: damages the bytes that the file has now."""
    whole = file.read_bytes()

    def damage(seed: int) -> str:
        broken, what = damaged(whole, seed)
        file.write_bytes(broken)
        return what

    return damage


_WRONG = (
    "-1",
    "0",
    "1e999",
    "nan",
    "''",
    "[]",
    "{}",
    "null",
    "true",
    "99999999999999999999",
    "[1, [2]]",
    "x: y",
    "é",
    "!!x 1",
)


def mistyped(text: str, seed: int) -> tuple[str, str]:
    """A text of keys and values with one to three mistakes of the kind that people make in YAML or JSON."""
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        key, colon, value = lines[at].partition(":")
        kind = rng.choice(("value", "value", "key", "indent", "twice", "gone", "swap", "list", "letter"))
        if kind == "value" and colon:
            lines[at] = f"{key}: {rng.choice(_WRONG)}{',' if value.endswith(',') else ''}"
        elif kind == "key" and colon:
            lines[at] = f"{key}{rng.choice(('s', 'x', ' '))}:{value}"
        elif kind == "indent":
            lines[at] = rng.choice(("  ", "\t", "    ")) + lines[at]
        elif kind == "twice":
            lines.insert(at, lines[at])
        elif kind == "gone":
            del lines[at]
        elif kind == "swap":
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "list":
            lines[at] = f"- {lines[at].strip()}"
        elif lines[at]:
            i = rng.randrange(len(lines[at]))
            lines[at] = lines[at][:i] + rng.choice("{}[],:&*!|>'\"%@`#-?\0") + lines[at][i + 1 :]
        done.append(kind)
        text = "\n".join(lines)
    return text, ", ".join(done)


_ATTRIBUTE = re.compile(r'([\w:]+)="([^"]*)"')
_ELEMENT = re.compile(r"<[\w:]+[^<>]*/>")


def mistyped_xml(text: str, seed: int) -> tuple[str, str]:
    """XML with one to three mistakes in what its attributes and empty elements say."""
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        attributes, elements = list(_ATTRIBUTE.finditer(text)), list(_ELEMENT.finditer(text))
        kind = rng.choice(("value", "value", "another", "key", "no attribute", "twice", "gone", "swap"))
        if kind in ("value", "another", "key", "no attribute") and attributes:
            at = rng.choice(attributes)
            value = rng.choice(_WRONG) if kind == "value" else rng.choice(attributes)[2] if kind == "another" else at[2]
            new = "" if kind == "no attribute" else f'{at[1]}{"x" * (kind == "key")}="{value}"'
            text = text[: at.start()] + new + text[at.end() :]
        elif elements:
            at, other = sorted(rng.choices(elements, k=2), key=re.Match.start)
            if kind == "gone":
                text = text[: at.start()] + text[at.end() :]
            elif kind == "swap" and at is not other:
                text = text[: at.start()] + other[0] + text[at.end() : other.start()] + at[0] + text[other.end() :]
            else:
                text = text[: at.end()] + other[0] + text[at.end() :]
        done.append(kind)
    return text, ", ".join(done)
