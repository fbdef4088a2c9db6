"""How a network is run: one protocol, ``Runner``, over a fixed-shape module, and the fallback order of ways to run it."""

from .base import BackendUnavailable, Runner
from .graph import GraphedProgram
from .runner import make_runner, resolve_auto, runner_from_onnx

__all__ = ["BackendUnavailable", "GraphedProgram", "Runner", "make_runner", "resolve_auto", "runner_from_onnx"]
