"""How a network is run: one protocol, ``Runner``, over a fixed-shape module, and the fallback order of ways to run it."""

from .base import BackendUnavailable, Runner, RunnerContext, ScoreRunner
from .graph import GraphedProgram
from .onnx_runners import runner_from_onnx
from .runner import make_runner

__all__ = [
    "BackendUnavailable",
    "GraphedProgram",
    "Runner",
    "RunnerContext",
    "ScoreRunner",
    "make_runner",
    "runner_from_onnx",
]
