"""What a callback raises is said, and goes no further: rclpy would swallow it, end the executor or leave a service unanswered."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from rclpy.lifecycle import State, TransitionCallbackReturn

OnError = Callable[[str, Exception], None]
Transition = Callable[[Any, State], TransitionCallbackReturn]


def said(transition: Transition) -> Transition:
    """A node's transition; what it raises is logged and becomes ``node.state.failure`` before error processing begins."""

    name = transition.__name__.removeprefix("on_")

    @wraps(transition)
    def run(node: Any, state: State) -> TransitionCallbackReturn:
        node.state.doing = name
        try:
            return transition(node, state)
        except Exception as error:
            node.state.failure = f"{name}: {type(error).__name__}: {error}"
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return run


def guarded(callback: Callable[..., None], on_error: OnError) -> Callable[..., None]:
    """A callback of a topic, timer or clock; what it raises goes to ``on_error`` as "callback_error"."""

    @wraps(callback)
    def call(*args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:  # whatever it is, the next message deserves its chance
            on_error("callback_error", error)

    return call


def answered(serve: Callable[[Any, Any], Any], on_error: OnError) -> Callable[[Any, Any], Any]:
    """A service whose response has ``success`` and ``message``; they say what it raises."""

    @wraps(serve)
    def call(request: Any, response: Any) -> Any:
        try:
            return serve(request, response)
        except Exception as error:
            on_error("callback_error", error)
            response.success, response.message = False, f"{type(error).__name__}: {error}"
            return response

    return call
