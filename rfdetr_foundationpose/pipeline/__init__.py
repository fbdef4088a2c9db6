"""Frames in, poses out: the per-object state machine and who runs when."""

from .pipeline import Pipeline
from .results import FrameResult, PipelineStatus

__all__ = ["FrameResult", "Pipeline", "PipelineStatus"]
