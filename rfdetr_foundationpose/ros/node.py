"""The managed node: life cycle, services and parameters around one pipeline."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, State, TransitionCallbackReturn
from rclpy.node import Node

from ..config import Config
from ..device import release_memory
from ..latency import StageStats, StageTimer
from ..objects import ObjectSpec, load_objects
from ..overlay import OverlayModel
from ..resources import default_objects_file
from . import compat, parameters
from .frame_work import FrameWork
from .guards import guarded, said
from .health import Health, gather, latency
from .inputs import Inputs
from .log_bridge import LogBridge
from .messages import marker_shape
from .pipeline import PipelineFactory, PosePipeline, real_pipeline
from .publishers import Outputs, instance_names
from .reporting import Reporter
from .ros_lock import RosLock
from .services import Services
from .starts import StartTopics
from .state import NodeState
from .telemetry import Telemetry
from .warm_up import WarmUp
from .worker import LatestFrame, Worker

NAME = "pose_node"
# Deactivate waits this long for the frame in work: a registration on a slow CPU takes its time.
FRAME_WAIT = 60.0

SUCCESS, FAILURE, FAILED = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class PoseNode(LifecycleNodeMixin, Node):
    """RGB-D topics in, object poses out. factory: makes the pipeline at configure.

    Raises rclpy's parameter exceptions for overrides of wrong type or range.
    """

    _inputs: Inputs | None = None

    def __init__(self, factory: PipelineFactory = real_pipeline, **kwargs: Any) -> None:
        Node.__init__(self, NAME, **kwargs)
        # Transitions take their time; an executor may run this group in a thread of its own.
        self.transitions = MutuallyExclusiveCallbackGroup()
        self.ros_lock = RosLock()
        LifecycleNodeMixin.__init__(self, callback_group=self.transitions)
        try:
            self._set_up(factory)
        except Exception:
            self.destroy_node()  # its traceback would keep the participant
            raise

    def _set_up(self, factory: PipelineFactory) -> None:
        self._factory = factory
        self._log_bridge = LogBridge(self.get_logger())
        self._log_bridge.open()
        self._closing = threading.Event()
        self.state = NodeState()
        self._pipeline: PosePipeline | None = None
        parameters.declare(self)
        for sentence in parameters.unknown_overrides(getattr(self, "_parameter_overrides", {})):
            self.get_logger().warning(sentence)
        self._config = parameters.read(self)
        self._live = parameters.LiveParameters(self, self._apply)
        self._specs: list[ObjectSpec] = []
        self._outputs: Outputs | None = None
        self._starts: StartTopics | None = None
        self._warm_up: WarmUp | None = None
        self._work: FrameWork | None = None
        self._report = Reporter(self.get_logger())
        self._latest = LatestFrame()
        self._worker = Worker(self._latest, self._report)
        self._timer = StageTimer()
        self._missing = tuple(compat.missing())
        for sentence in self._missing:
            self.get_logger().warning(sentence)
        Services(self, self.state, lambda: self._pipeline, self._report)
        # Steady time: with use_sim_time and no /clock yet a ROS timer would never fire.
        self._autostart = self.create_timer(
            0.01,
            self._start_by_itself,
            callback_group=self.transitions,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=guarded(lambda _jump: self._on_jump("ROS time jumped"), self._report),
        )
        self._telemetry = Telemetry(self, self._timer, lambda: self._config, self._latency, self._health, self._report)
        self._telemetry.start()

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        if self._closing.is_set() or not self._config.autostart:
            return
        if self.trigger_configure() == SUCCESS and not self._closing.is_set():
            self.trigger_activate()

    @said
    def on_configure(self, state: State) -> TransitionCallbackReturn:
        with self._live.lock:
            self._live.in_use, config = True, self._config
        self.state.label, self.state.failure = "configuring", ""
        return self._configure(config)

    def _configure(self, config: Config) -> TransitionCallbackReturn:
        log, begin = self.get_logger(), time.monotonic()
        try:
            self._specs = load_objects(config.objects_file or default_objects_file())
            self._inputs = Inputs(self, config, instance_names(self._specs), self._latest, self._on_jump, self._report)
            models = {s.name: OverlayModel.load(s) for s in self._specs}
            self.state.doing = "configure: loading weights"
            log.info(f"configuring: objects {', '.join(s.name for s in self._specs)}; loading weights")
            with self.ros_lock.set_aside():
                self._pipeline = self._factory(config)
            with self._live.lock:  # live settings may have changed while that took its time
                self._pipeline.apply(self._config)
            self._warm_up = WarmUp(self._pipeline, self.state, self.ros_lock, log)
            self._warm_up.before_frames(self._inputs, self._closing)
            self._starts = StartTopics(self, self._specs, self._pipeline.start_at, self._report)
            shapes = {s.name: marker_shape(s, models[s.name], config.output.marker_mesh) for s in self._specs}
            self._outputs = Outputs(self, self._specs, shapes)
            self._work = FrameWork(
                self,
                self.state,
                lambda: self._config,
                self._inputs,
                self._warm_up,
                self._pipeline,
                self._outputs,
                self._telemetry,
                self._timer,
            )
            self._telemetry.use_models(models)
        except Exception as error:
            self.state.failure = f"{type(error).__name__}: {error}"
            log.error(f"cannot configure: {self.state.failure}")
            if not isinstance(error, (ValueError, ImportError, OSError)):
                # ConfigError and the rooms' load errors say what to do; others, as torch's, need the place too.
                log.error(traceback.format_exc())
            self._release()
            return FAILURE
        # A full collection over the libraries' objects would hold all threads up for 0.3 s; what is loaded stays anyway.
        gc.collect()
        gc.freeze()
        self.state.label = "inactive"
        log.info(f"configured in {time.monotonic() - begin:.1f} s")
        return SUCCESS

    @said
    def on_activate(self, state: State) -> TransitionCallbackReturn:
        assert self._inputs is not None and self._pipeline is not None
        assert self._warm_up is not None and self._work is not None
        if not self._worker.start(self._work.handle, self._work.handle_early):
            self.state.failure = "the frame in work when the node was stopped has not ended yet: activate again later"
            self.get_logger().error(f"cannot activate: {self.state.failure}")
            return FAILURE
        result = super().on_activate(state)
        self._pipeline.reset()  # what was tracked before a pause is elsewhere now
        self.state.since = time.monotonic()
        self._warm_up.start_over()
        self._inputs.open()
        self.state.label, self.state.failure = "active", ""
        self.get_logger().info("active: taking frames")
        return result

    @said
    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        if not self._halt(FRAME_WAIT):
            return FAILED
        self.state.label = "inactive"
        self.get_logger().info("inactive")
        return super().on_deactivate(state)

    @said
    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        self._release()
        return SUCCESS

    @said
    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        self._halt(FRAME_WAIT)
        self._release()
        self.state.label = "finalized"
        return SUCCESS

    @said
    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Back to unconfigured with everything released, so that it can be configured again."""
        self.get_logger().error(f"error in state {state.label}; released everything")
        self._halt(FRAME_WAIT)
        self._release()
        return SUCCESS

    def _halt(self, timeout: float) -> bool:
        if self._inputs is not None:
            self._inputs.close_images()
        with self.ros_lock.set_aside():
            ended = self._worker.stop(timeout)
        if not ended:
            self.get_logger().error(f"the frame in work did not end within {timeout:g} s")
        return ended

    def _release(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._starts is not None:
            self._starts.close()
        if self._pipeline is not None:
            with self.ros_lock.set_aside():
                self._pipeline.close()
        self._inputs = self._outputs = self._starts = self._pipeline = self._warm_up = self._work = None
        self._live.in_use = False
        self._telemetry.use_models({})
        gc.unfreeze()
        release_memory()
        self.state.label = "unconfigured"

    def closing(self) -> None:
        """The process is about to end: nothing new is begun, and errors, as of entities that are gone, are no news."""
        self._closing.set()
        self._report.close()

    def close(self, timeout: float) -> list[str]:
        """End all threads, for the end of the process, when no callback runs any more. Says what is stuck in native code."""
        deadline = time.monotonic() + timeout
        unfinished = []
        if not self._telemetry.stop(timeout):
            unfinished.append("debug image")
        if not self._halt(max(deadline - time.monotonic(), 0.1)):
            return [*unfinished, "the frame in work"]
        if self._pipeline is None:
            return unfinished
        # A registration under way in the pipeline's own thread may take longer than we have. Memory goes with the process.
        end = threading.Thread(target=self._pipeline.close, name="close", daemon=True)
        end.start()
        end.join(max(deadline - time.monotonic(), 0.1))
        return [*unfinished, "a registration"] if end.is_alive() else unfinished

    def destroy_node(self) -> None:
        """As rclpy's, and the life cycle's state machine too: rclpy 9 leaves it, and with it the participant."""
        self._log_bridge.close()
        if self._inputs is not None:
            self._inputs.stop()
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # Callbacks: they store and return.

    def _on_jump(self, what: str) -> None:
        self.get_logger().warning(f"{what}: synchronizer and tracks are reset")
        inputs, pipeline = self._inputs, self._pipeline  # a transition may take them away
        if inputs is not None:
            inputs.forget()
        if pipeline is not None:
            pipeline.reset()

    def _apply(self, config: Config) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            pipeline.apply(config)
        self._config = config

    # What the telemetry thread asks.

    def _latency(self) -> dict[str, StageStats]:
        return latency(self._pipeline, self._timer)

    def _health(self) -> Health:
        warm_up, work = self._warm_up, self._work  # a transition may take them away
        return gather(
            self,
            self.state,
            self._config,
            self._latest,
            self._worker,
            self._report,
            self._timer,
            inputs=self._inputs,
            pipeline=self._pipeline,
            specs=self._specs,
            hardware_id=warm_up.frame_id if warm_up is not None else "",
            age=work.age if work is not None else None,
            missing=self._missing,
            debug_dropped=self._telemetry.dropped,
        )
