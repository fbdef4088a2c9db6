"""The managed node: life cycle, services and parameters around one pipeline."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNodeMixin, State, TransitionCallbackReturn
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from ..config import Config
from ..device import release_memory
from ..latency import StageStats, StageTimer
from ..objects import ObjectSpec, load_objects
from ..overlay import OverlayModel
from ..resources import default_objects_file
from ..types import CameraIntrinsics, Frame, InputError
from . import compat, parameters
from .diagnostics import Health
from .guards import answered, guarded, said
from .inputs import Inputs
from .log_bridge import LogBridge
from .messages import marker_shape
from .pipeline import PipelineFactory, PosePipeline, real_pipeline
from .publishers import Outputs, instance_names
from .reporting import Reporter
from .ros_lock import RosLock
from .starts import StartTopics
from .telemetry import Telemetry
from .worker import EarlyImage, LatestFrame, Pair, Worker, check_age

NAME = "pose_node"
# Configure waits this long for a camera_info, so that the warm-up uses the camera's real size.
CAMERA_WAIT = 1.0
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
        self.doing = "starting"
        self._pipeline: PosePipeline | None = None
        parameters.declare(self)
        for sentence in parameters.unknown_overrides(getattr(self, "_parameter_overrides", {})):
            self.get_logger().warning(sentence)
        self._config = parameters.read(self)
        self._live = parameters.LiveParameters(self, self._apply)
        self._specs: list[ObjectSpec] = []
        self._outputs: Outputs | None = None
        self._starts: StartTopics | None = None
        self._report = Reporter(self.get_logger())
        self._latest = LatestFrame()
        self._worker = Worker(self._latest, self._handle, self._report, self._handle_early)
        self._timer = StageTimer()
        self._state, self._failure, self._since = "unconfigured", "", 0.0
        self._enabled = True
        self._age: float | None = None
        self._warmed: tuple[int, int] | None = None
        self._seen: tuple[str, int, int] | None = None
        self._missing = tuple(compat.missing())
        for sentence in self._missing:
            self.get_logger().warning(sentence)
        self._create_services()
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=guarded(lambda _jump: self._on_jump("ROS time jumped"), self._report),
        )
        self._telemetry = Telemetry(self, self._timer, lambda: self._config, self._latency, self._health, self._report)
        self._telemetry.start()

    def _create_services(self) -> None:
        self.create_service(Trigger, "~/reset", answered(self._on_reset, self._report))
        self.create_service(SetBool, "~/set_enabled", answered(self._on_set_enabled, self._report))
        # Steady time: with use_sim_time and no /clock yet a ROS timer would never fire.
        self._autostart = self.create_timer(
            0.01,
            self._start_by_itself,
            callback_group=self.transitions,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

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
        self._state, self._failure = "configuring", ""
        return self._configure(config)

    def _configure(self, config: Config) -> TransitionCallbackReturn:
        log, begin = self.get_logger(), time.monotonic()
        try:
            self._specs = load_objects(config.objects_file or default_objects_file())
            self._inputs = Inputs(self, config, instance_names(self._specs), self._latest, self._on_jump, self._report)
            models = {s.name: OverlayModel.load(s) for s in self._specs}
            self.doing = "configure: loading weights"
            log.info(f"configuring: objects {', '.join(s.name for s in self._specs)}; loading weights")
            with self.ros_lock.set_aside():
                self._pipeline = self._factory(config)
            with self._live.lock:  # live settings may have changed while that took its time
                self._pipeline.apply(self._config)
            self._warm_up_early()
            self._starts = StartTopics(self, self._specs, self._pipeline.start_at, self._report)
            shapes = {s.name: marker_shape(s, models[s.name], config.output.marker_mesh) for s in self._specs}
            self._outputs = Outputs(self, self._specs, shapes)
            self._telemetry.use_models(models)
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")
            log.error(f"cannot configure: {self._failure}")
            if not isinstance(error, (ValueError, ImportError, OSError)):
                # ConfigError and the rooms' load errors say what to do; others, as torch's, need the place too.
                log.error(traceback.format_exc())
            self._release()
            return FAILURE
        # A full collection over the libraries' objects would hold all threads up for 0.3 s; what is loaded stays anyway.
        gc.collect()
        gc.freeze()
        self._state = "inactive"
        log.info(f"configured in {time.monotonic() - begin:.1f} s")
        return SUCCESS

    def fail(self, why: str) -> None:
        """Why the node does not run, for diagnostics, until the next configure."""
        self._failure = why

    def _warm_up_early(self) -> None:
        assert self._pipeline is not None and self._inputs is not None
        with self.ros_lock.set_aside():
            camera = self._inputs.wait_for_camera(CAMERA_WAIT, self._closing)
        if camera is None:
            self.get_logger().info("no camera_info yet: the warm-up waits for the first frame")
        else:
            self._warm_up(camera)

    def _warm_up(self, camera: CameraIntrinsics) -> None:
        assert self._pipeline is not None
        self.doing = "warm-up"
        self.get_logger().info(f"warming up for {camera.width}x{camera.height}")
        begin = time.monotonic()
        with self.ros_lock.set_aside():
            self._pipeline.warm_up(camera)
        self._warmed = (camera.width, camera.height)
        self.get_logger().info(f"warmed up in {time.monotonic() - begin:.1f} s")

    @said
    def on_activate(self, state: State) -> TransitionCallbackReturn:
        assert self._inputs is not None and self._pipeline is not None
        if not self._worker.start():
            self.fail("the frame in work when the node was stopped has not ended yet: activate again later")
            self.get_logger().error(f"cannot activate: {self._failure}")
            return FAILURE
        result = super().on_activate(state)
        self._pipeline.reset()  # what was tracked before a pause is elsewhere now
        self._since = time.monotonic()
        self._seen = None
        self._inputs.open()
        self._state, self._failure = "active", ""
        self.get_logger().info("active: taking frames")
        return result

    @said
    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        if not self._halt(FRAME_WAIT):
            return FAILED
        self._state = "inactive"
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
        self._state = "finalized"
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
        self._inputs = self._outputs = self._starts = self._pipeline = None
        self._live.in_use = False
        self._warmed = None
        self._telemetry.use_models({})
        gc.unfreeze()
        release_memory()
        self._state = "unconfigured"

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

    # The worker's thread.

    def _handle_early(self, image: EarlyImage) -> None:
        """Convert and upload it while its partner is on its way. What will be refused is left alone."""
        assert self._pipeline is not None and self._inputs is not None
        check_age(self._age_of(image), self._config.input.max_age)
        if self._enabled and self._warmed == (image.message.width, image.message.height):
            self._upload_early(image)

    def _upload_early(self, image: EarlyImage) -> None:
        assert self._pipeline is not None and self._inputs is not None
        self._pipeline.upload_early(**self._inputs.convert_early(image))

    def _handle(self, pair: Pair) -> None:
        pipeline, outputs, inputs = self._pipeline, self._outputs, self._inputs
        assert pipeline is not None and outputs is not None and inputs is not None
        if not self._enabled:
            raise InputError("disabled", "disabled by ~/set_enabled")
        self._age = self._age_of(pair)
        check_age(self._age, self._config.input.max_age)
        with ExitStack() as leases:
            with self._timer.stage("convert", on_device=False):
                frame = inputs.assemble(pair, leases)
            self._follow_camera(frame, pipeline)
            result = pipeline.process(frame)
            with self._timer.stage("publish", on_device=False):
                outputs.publish(result, self._config.output)
            self._timer.add("end_to_end", (self.get_clock().now().nanoseconds - pair.stamp_ns) / 1e6)
            self._telemetry.offer(result)
        for event in result.events:
            self.get_logger().info(event)

    def _age_of(self, taken: Pair | EarlyImage) -> float:
        return (self.get_clock().now().nanoseconds - taken.stamp_ns) / 1e9

    def _follow_camera(self, frame: Frame, pipeline: PosePipeline) -> None:
        """A new image size needs a warm-up, a new camera frame or size makes the tracks meaningless."""
        size = (frame.camera.width, frame.camera.height)
        seen = (frame.frame_id, *size)
        if self._seen is not None and seen != self._seen:
            self.get_logger().warning(f"camera changed from {self._seen} to {seen}: searching again")
            pipeline.reset()
        self._seen = seen
        if self._warmed != size:
            self._warm_up(frame.camera)

    # Callbacks: they store and return.

    def _on_jump(self, what: str) -> None:
        self.get_logger().warning(f"{what}: synchronizer and tracks are reset")
        inputs, pipeline = self._inputs, self._pipeline  # a transition may take them away
        if inputs is not None:
            inputs.forget()
        if pipeline is not None:
            pipeline.reset()

    def _on_reset(self, _request: Any, response: Any) -> Any:
        pipeline = self._pipeline
        response.success = pipeline is not None
        response.message = "searching again" if pipeline is not None else f"not configured ({self._state})"
        if pipeline is not None:
            pipeline.reset()
        return response

    def _on_set_enabled(self, request: Any, response: Any) -> Any:
        pipeline = self._pipeline
        if request.data and not self._enabled and pipeline is not None:
            pipeline.reset()
        self._enabled = bool(request.data)
        response.success = True
        response.message = "enabled" if self._enabled else "disabled: frames are dropped and counted"
        return response

    def _apply(self, config: Config) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            pipeline.apply(config)
        self._config = config

    # What the telemetry thread asks.

    def _latency(self) -> dict[str, StageStats]:
        pipeline = self._pipeline
        return {**(pipeline.timer.stats() if pipeline is not None else {}), **self._timer.stats()}

    def _health(self) -> Health:
        config, pipeline, inputs, seen = self._config, self._pipeline, self._inputs, self._seen
        now = time.monotonic()
        errors, counts = self._report.snapshot()
        return Health(
            node=self.get_fully_qualified_name().lstrip("/"),
            state=self._state,
            failure=self._failure,
            enabled=self._enabled,
            hardware_id=seen[0] if seen is not None else "",
            since=now - self._since,
            tally=self._latest.tally(),
            **(inputs.health() if inputs is not None else {"has_camera": False}),
            rate=self._latest.rate(now),
            processed_rate=self._latest.processed_rate(now),
            silence=self._latest.silence(now),
            age=self._age,
            busy_for=self._worker.busy_for(),
            min_rate=config.debug.min_input_rate,
            sync=config.input.sync,
            transport=config.input.image_transport,
            status=pipeline.status() if pipeline is not None else None,
            thresholds={
                s.name: s.threshold if s.threshold is not None else config.detector.threshold for s in self._specs
            },
            latency=self._latency(),
            errors=errors,
            error_counts=counts,
            waiting_for_clock=self.get_clock().now().nanoseconds == 0,
            missing=self._missing,
            debug_dropped=self._telemetry.dropped,
        )
