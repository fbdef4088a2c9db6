"""How a network is run: one protocol, ``Runner``, over a fixed-shape module, and the fallback order of ways to run it."""

from .base import BackendUnavailable, EngineOptions, Runner, RunnerContext, ScoreRunner
from .graph import GraphedProgram
from .runner import make_runner

__all__ = [
    "BackendUnavailable",
    "EngineOptions",
    "GraphedProgram",
    "Runner",
    "RunnerContext",
    "ScoreRunner",
    "make_runner",
]
