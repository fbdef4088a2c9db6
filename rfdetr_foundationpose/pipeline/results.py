"""What the pipeline returns: the result of a frame, and its own state."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..types import Detection, Frame, ObjectPose, TrackState


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave.

    poses: every tracked instance (state TRACKING) and those lost on this frame (LOST, with their last pose).
    detections: above threshold, best first; None when the detector did not run on this frame.
    events: sentences for a human: registered, lost, refused and why.
    """

    frame: Frame
    poses: list[ObjectPose]
    detections: list[Detection] | None
    events: list[str]

    @property
    def tracking(self) -> list[ObjectPose]:
        """The poses of this frame, without those of instances that were just lost."""
        return [p for p in self.poses if p.state is TrackState.TRACKING]

    def pose(self, name: str) -> ObjectPose | None:
        """The pose of an instance in this frame, by its name ("mug", "mug_1"); None where it is not tracked."""
        return next((p for p in self.tracking if p.name == name), None)

    def poses_of(self, object: str) -> list[ObjectPose]:
        """The poses of all instances of an object in this frame."""
        return [p for p in self.tracking if p.object == object]


@dataclass(frozen=True)
class PipelineStatus:
    """What runs and how it fares; cheap to make, safe from any thread.

    detector_backend, pose_backend: what really runs, not what was asked for; ``degraded`` says where the two differ.
    pose_library: what runs the networks besides torch (TensorRT, onnxruntime), with its version and why it was taken.
    counters: since the start. states: instance name -> track state. best_below: object -> best score below its
    threshold in the last detector run.
    """

    detector_source: str = ""
    detector_backend: str = ""
    detector_weights: str = ""
    pose_backend: str = ""
    pose_weights: str = ""
    device: str = ""
    gpu_memory_bytes: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    best_below: dict[str, float] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    pose_library: str = ""
