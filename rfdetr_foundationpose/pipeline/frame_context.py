"""What the steps of one frame hand on to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ..config import Config
from ..types import CameraIntrinsics, Frame, TrackState
from .association import Association
from .tracks import Change, Track

if TYPE_CHECKING:
    from ..detect.detector import DetectionReport
    from ..device_frame import DeviceFrame
    from ..pose.observation import Observation
    from .registration_worker import Job

# State that a track changes into -> its counter, and the words before and after the reason that tell of it.
_CHANGES = {
    TrackState.LOST: ("lost", "lost", ""),
    TrackState.UNCERTAIN: ("uncertain", "uncertain", "; searched near where it was"),
    TrackState.TRACKING: ("found_again", "found again", ""),
}


@dataclass
class FrameContext:
    """One frame on its way through the pipeline.

    index: number of the frame since the start. config: the settings in force. counters: the pipeline's. prepare: filters
    the depth. still: no frame follows, so everything is registered on this one. finished: the background registration that
    finished since the last frame. collect: waits for the detector and returns its report; None where the detector does not
    run, or was waited for. report: the detector's, once collected. associations: by object; None before detections were
    assigned to tracks. events: sentences for a human.
    """

    index: int
    image: DeviceFrame
    config: Config
    counters: Counter[str]
    prepare: Callable[[DeviceFrame], Observation]
    still: bool = False
    finished: Job | None = None
    collect: Callable[[], DetectionReport] | None = None
    report: DetectionReport | None = None
    associations: Mapping[str, Association] | None = None
    events: list[str] = field(default_factory=list)

    @property
    def frame(self) -> Frame:
        return self.image.frame

    @property
    def camera(self) -> CameraIntrinsics:
        return self.image.camera

    @cached_property
    def observation(self) -> Observation:
        """The frame with its depth filtered; done once, when a step first asks."""
        return self.prepare(self.image)

    def count(self, counter: str, number: int = 1) -> None:
        self.counters[counter] += number

    def say(self, event: str) -> None:
        """Add a sentence for a human."""
        self.events.append(event)

    def changed(self, track: Track, change: Change | None) -> None:
        """Count and tell a change of a track; None: there was none."""
        if change is not None:
            counter, words, more = _CHANGES[change.state]
            self.count(counter)
            self.say(f"{track.name} {words}: {change.why}{more}")
