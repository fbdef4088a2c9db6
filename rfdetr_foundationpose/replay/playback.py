"""What is replayed: a recording, and the objects that are looked for in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..objects import ObjectSpec
from .recording import Recording


@dataclass(frozen=True)
class Playback:
    """The first ``frames`` of a recording (None: all of them), and the objects that are looked for."""

    recording: Recording
    specs: Sequence[ObjectSpec]
    frames: int | None = None

    @property
    def total(self) -> int:
        """How many frames these are."""
        length = len(self.recording)
        return length if self.frames is None else min(self.frames, length)
