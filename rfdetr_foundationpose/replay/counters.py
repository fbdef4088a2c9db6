"""The node's own book-keeping, as it publishes it: what became of the frames that were played."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .node_process import POSE_NODE, NoPose


@dataclass(frozen=True)
class Counters:
    """received == processed + sum(dropped.values()) + in_flight. dropped: by reason. newest_ns: stamp of the newest frame
    that came; 0 before the first. lost: objects."""

    received: int
    processed: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    newest_ns: int = 0
    lost: int = 0

    @classmethod
    def read(cls, diagnostics: Mapping[str, Mapping[str, str]]) -> Counters:
        """Of the values of each status. Raises NoPose when the node has published no diagnostics."""
        values = diagnostics.get(f"{POSE_NODE}: processing")
        if values is None:
            raise NoPose(f"{POSE_NODE} published no diagnostics on /diagnostics; cannot count frames and drops")
        dropped = {k.removeprefix("dropped_"): int(v) for k, v in values.items() if k.startswith("dropped_")}
        received, processed, in_flight, newest = (
            int(values[k]) for k in ("received", "processed", "in_flight", "newest_stamp_ns")
        )
        lost = int(diagnostics.get(f"{POSE_NODE}: objects", {}).get("lost", "0"))
        return cls(received, processed, dropped, in_flight, newest, lost)

    def accounts_for(self, stamp_ns: int) -> bool:
        """Whether every frame up to that stamp is in the books: frames come in the order in which they were sent, so what
        has not come before that one will not come any more."""
        return self.newest_ns >= stamp_ns and self.in_flight == 0

    def since(self, before: Counters) -> Counters:
        """What came after ``before``, when nothing was in flight."""
        new = {k: v - before.dropped.get(k, 0) for k, v in self.dropped.items()}
        return Counters(
            self.received - before.received,
            self.processed - before.processed,
            {k: v for k, v in new.items() if v},
            self.in_flight,
            self.newest_ns,
            self.lost - before.lost,
        )
