"""A line of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    OK = "ok"
    OPTIONAL = "optional"  # missing, but the node runs without it
    MISSING = "missing"  # the node cannot run


@dataclass(frozen=True)
class Finding:
    """fix: what to do about it, empty when nothing is to be done."""

    name: str
    verdict: Verdict
    value: str
    fix: str = ""
