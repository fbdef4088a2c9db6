"""The node's services: ~/reset and ~/set_enabled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from std_srvs.srv import SetBool, Trigger

from .guards import OnError, answered
from .pipeline import PosePipeline
from .state import NodeState


class Services:
    """pipeline: the one that is configured now, or None."""

    def __init__(
        self, node: Any, state: NodeState, pipeline: Callable[[], PosePipeline | None], on_error: OnError
    ) -> None:
        self._state = state
        self._pipeline = pipeline
        node.create_service(Trigger, "~/reset", answered(self.reset, on_error))
        node.create_service(SetBool, "~/set_enabled", answered(self.set_enabled, on_error))

    def reset(self, _request: Any, response: Any) -> Any:
        """Search all objects anew."""
        pipeline = self._pipeline()
        response.success = pipeline is not None
        response.message = "searching again" if pipeline is not None else f"not configured ({self._state.label})"
        if pipeline is not None:
            pipeline.reset()
        return response

    def set_enabled(self, request: Any, response: Any) -> Any:
        """Take frames, or drop them; what was tracked before a pause is elsewhere by then."""
        pipeline = self._pipeline()
        if request.data and not self._state.enabled and pipeline is not None:
            pipeline.reset()
        self._state.enabled = bool(request.data)
        response.success = True
        response.message = "enabled" if self._state.enabled else "disabled: frames are dropped and counted"
        return response
