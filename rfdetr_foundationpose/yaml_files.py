"""YAML that people write: read strictly, with errors that name file, line and key."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

LARGEST_FILE = 10_000_000
"""So many bytes are more than any settings file holds, and what PyYAML reads in about a minute."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as ROS reads it, with numbers like 1e-3 too, and without keys that are given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; None when it is empty. Raises ConfigError that names file and line."""
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ConfigError(f"{path} has {size / 1e6:.0f} MB; a YAML file of settings or objects has a few kB")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8 (byte {error.start}); is it a YAML file?") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {reason}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str, *, lines: bool = True) -> Any:
    """What a YAML text holds. source: what errors name it, with the line if it has ``lines``. Raises ConfigError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source if mark is None or not lines else f"{source}:{mark.line + 1}"
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: a date such as 2026-99-99
        raise ConfigError(f"{source}: not valid YAML: {_one_line(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply for a file of settings or objects") from error


def shown(value: Any) -> str:
    """A value for an error message, cut short."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def suggestion(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or "" where nothing is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_keys(entry: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigError for keys that are not known."""
    known = sorted(known)
    for key in entry:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {shown(key)}{suggestion(str(key), known)}; known are {', '.join(known)}"
            )


def number(value: Any, where: str, low: float, high: float, *, unit: str = "", above: bool = False) -> float:
    """A finite number in [low, high], or in (low, high] with ``above``. Raises ConfigError."""
    allowed = f"{'(' if above else '['}{low:g}, {high:g}] {unit}".rstrip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}={shown(value)} must be a number in {allowed}")
    # An integer of hundreds of digits is no float, NaN is in no range.
    if not (low <= value <= high) or (above and value == low) or not math.isfinite(value):
        raise ConfigError(f"{where}={shown(value)} must be in {allowed}")
    return float(value)


def whole_number(value: Any, where: str, low: int, high: int) -> int:
    """An integer in [low, high]. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{where}={shown(value)} must be a whole number in [{low}, {high}]")
    return value


def text(value: Any, where: str) -> str:
    """A text that is not empty. Raises ConfigError."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(
            f"{where}={shown(value)} must be a text that is not empty; put it in quotes if YAML reads it otherwise"
        )
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
