"""A camera, the node in a second process, and ears on its topics, for tests over a real DDS graph."""

from __future__ import annotations

import array
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

# Before rclpy: a graph of this machine only, whose domain other test runs on it are unlikely to share.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

from rfdetr_foundationpose.ros.transport import profiles_variable  # noqa: E402
from support import ros_fork  # noqa: E402

os.environ[profiles_variable()] = str(ROOT / "config" / "fastdds.xml")

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

WIDTH, HEIGHT = 160, 120
FRAME_ID = "camera_color_optical_frame"
# Tests wait this long (s) for what is sure to come; it only says when they give up, and the machine may be busy.
PATIENCE = 150.0
_numbers = count()
# The fork server imports the node's libraries once; it finds modules by PYTHONPATH only.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")])
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["support.ros_double_node"])


def objects_yaml(folder: Path) -> Path:
    """objects.yaml with one box of 0.1 x 0.08 x 0.2 m named ``box``."""
    import trimesh

    trimesh.creation.box((0.1, 0.08, 0.2)).export(folder / "box.ply")
    path = folder / "objects.yaml"
    path.write_text("objects:\n  - {name: box, mesh: box.ply, max_instances: 1}\n")
    return path


def _load() -> float:
    """What is asked of each core: over the last minute, or now where that is more, as of work that has just begun."""
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1  # but for this thread
    return max(os.getloadavg()[0], running) / (os.cpu_count() or 1)


def on_idle(seconds: float) -> float:
    """A time that holds on an idle machine, stretched by how busy this one is."""
    return seconds * max(1.0, _load())


def is_busy() -> bool:
    """Whether other work keeps this machine's cores: how long something takes then says nothing about the node."""
    return _load() > 1.0


def segments_of(pid: int) -> list[Path]:
    """Fast DDS's shared-memory segments that the process holds, by the locks that it keeps open.

    Without the queues of its ports (52 kB), which stay while a peer has them open.
    """
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = entry.readlink()
            if target.parent == Path("/dev/shm") and target.name.endswith("_el") and "_port" not in target.name:
                found.append(target.with_name(target.name.removesuffix("_el")))
    return found


def process_facts(pid: int) -> dict[str, int]:
    """Resident memory in KiB, threads, open files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"rss_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "files": files}


class Node:
    """The node's process, forked from one that has the libraries loaded, or ``fresh``: an interpreter of its own.

    ``log`` is its output so far.
    """

    def __init__(
        self, folder: Path, namespace: str, arguments: list[str], environment: dict[str, str], fresh: bool = False
    ) -> None:
        self._path = folder / f"node{next(_numbers)}.log"
        self._path.touch()
        arguments = [
            "--ros-args", "-r", f"__ns:={namespace}", "-r", f"/diagnostics:={namespace}/diagnostics", *arguments
        ]  # fmt: skip
        graph = {k: v for k, v in os.environ.items() if k.startswith(("ROS_", "FASTDDS_", "FASTRTPS_"))}
        environment = {**graph, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **environment}
        self._popen: subprocess.Popen[bytes] | None = None
        self._fork: Any = None
        if fresh:
            command = [sys.executable, str(ROOT / "test" / "support" / "ros_double_node.py"), *arguments]
            with self._path.open("w") as log:
                self._popen = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
                )
        else:
            self._fork = _forks.Process(target=ros_fork.run, args=(arguments, environment, str(self._path)))
            self._fork.start()

    @property
    def log(self) -> str:
        return self._path.read_text()

    @property
    def pid(self) -> int:
        return int(self._popen.pid if self._popen is not None else self._fork.pid)

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._popen.poll() if self._popen is not None else self._fork.exitcode

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; the return code, None when it did not end."""
        deadline = time.monotonic() + timeout
        while self.returncode is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.returncode

    def stop(self, number: int = signal.SIGINT) -> float:
        """Signal the process and wait; returns the seconds that it took to end. Fails when shared memory is left."""
        held = segments_of(self.pid) if self.returncode is None else []
        begin = time.monotonic()
        if self.returncode is None:
            os.kill(self.pid, number)
        if self.wait(PATIENCE) is None:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError(f"the node did not end on signal {number}:\n{self.log}")
        took = time.monotonic() - begin
        left = [path for path in held if path.exists()]
        assert number == signal.SIGKILL or not left, f"left in shared memory: {left}\n{self.log}"
        return took


class Graph:
    """A node of the test's process in ``namespace``: camera publishers, subscriptions, service clients."""

    def __init__(
        self, namespace: str, *, reliable: bool = False, latched_info: bool = False, compressed: bool = False
    ) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.namespace = namespace
        self.node = rclpy.create_node("test", context=self.context, namespace=namespace)
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        images = QoSProfile(depth=5, reliability=reliability)
        info = images
        if latched_info:
            info = QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
            )
        kind: Any = CompressedImage if compressed else Image
        suffixes = ("/compressed", "/compressedDepth") if compressed else ("", "")
        self.rgb = self.node.create_publisher(kind, f"rgb/image{suffixes[0]}", images)
        self.depth = self.node.create_publisher(kind, f"depth/image{suffixes[1]}", images)
        self.info = self.node.create_publisher(CameraInfo, "rgb/camera_info", info)
        self._clients: dict[str, Any] = {}
        self.alive: Callable[[], bool] = lambda: True
        self.poses: list[tuple[PoseStamped, float]] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.node.create_subscription(PoseStamped, "pose_node/pose/box", self._on_pose, 100)
        self.node.create_subscription(DiagnosticArray, "diagnostics", self.diagnostics.append, 100)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._stop = threading.Event()
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except rclpy_implementation.InvalidHandle:
                continue  # a test destroyed an entity while the wait set was made: rclpy 7 raises that

    def _on_pose(self, message: PoseStamped) -> None:
        self.poses.append((message, time.time()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"pose_node/{name}")
        deadline = time.monotonic() + PATIENCE
        while not self._clients[name].wait_for_service(0.5):
            assert self.alive() and time.monotonic() < deadline, f"no service {name}"
        future = self._clients[name].call_async(request)
        wait_for(future.done, f"service {name}")
        return future.result()

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def transition(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(ChangeState, "change_state", request).success)

    def set_parameter(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def describe(self, *names: str) -> Any:
        return self.call(
            DescribeParameters, "describe_parameters", DescribeParameters.Request(names=list(names))
        ).descriptors

    def wait_active(self, calibrate: bool = True) -> None:
        """Wait for the node; as a camera that runs, with ``calibrate``, so that it needs not wait for a camera_info."""
        info = Camera(self).camera_info

        def active() -> bool:
            if calibrate:
                self.info.publish(info(time.time_ns()))
            return self.state() == "active"

        wait_for(active, "the node to be active")
        wait_for(
            lambda: self.rgb.get_subscription_count() > 0 and self.depth.get_subscription_count() > 0, "subscriptions"
        )
        wait_for(lambda: self.info.get_subscription_count() > 0, "camera_info subscription")

    def report(self, name: str) -> Any:
        """Newest diagnostics status of that name."""
        statuses = [s for a in self.diagnostics for s in a.status if s.name.endswith(name)]
        return statuses[-1] if statuses else None

    def values(self, name: str = "processing") -> dict[str, str]:
        status = self.report(name)
        return {} if status is None else {v.key: v.value for v in status.values}

    def fresh_values(self, name: str = "processing") -> dict[str, str]:
        """Values of a report that was made after this call."""
        self.fresh_report(name)
        return self.values(name)

    def settle(self) -> dict[str, str]:
        """The processing report once the node has done what it was sent."""
        wait_for(lambda: self.fresh_values()["in_flight"] == "0", "the last frame")
        return self.values()

    def fresh_report(self, name: str) -> Any:
        # Two: the first may have been in the making.
        seen = len(self.diagnostics)
        wait_for(lambda: len(self.diagnostics) >= seen + 2, "diagnostics")
        return self.report(name)


class Camera:
    """Makes and publishes frames of a constant colour and depth on a graph."""

    def __init__(self, graph: Graph, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.graph = graph
        self.width, self.height = width, height
        self.frame_id = FRAME_ID
        self.red, self.metres = 200, 1.0
        self.with_info = True

    def message(self, pixels: np.ndarray, encoding: str, stamp_ns: int) -> Image:
        message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=pixels.strides[0])
        self.head(message, stamp_ns)
        message.data = array.array("B", pixels.tobytes())
        return message

    def head(self, message: Any, stamp_ns: int) -> None:
        message.header.frame_id = self.frame_id
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)

    def rgb(self, stamp_ns: int) -> Image:
        pixels = np.zeros((self.height, self.width, 3), np.uint8)
        pixels[..., 0] = self.red
        return self.message(pixels, "rgb8", stamp_ns)

    def depth(self, stamp_ns: int) -> Image:
        return self.message(np.full((self.height, self.width), round(self.metres * 1000), np.uint16), "16UC1", stamp_ns)

    def camera_info(self, stamp_ns: int) -> CameraInfo:
        f = float(self.width)
        info = CameraInfo(
            width=self.width, height=self.height, k=[f, 0.0, self.width / 2, 0.0, f, self.height / 2, 0.0, 0.0, 1.0]
        )
        self.head(info, stamp_ns)
        return info

    def publish(self, stamp_ns: int | None = None, *, depth_shift: float = 0.0, **changed: Any) -> int:
        """One frame; ``changed`` rgb= or depth= takes a message instead of the usual one, None leaves it out."""
        stamp = time.time_ns() if stamp_ns is None else stamp_ns
        if self.with_info:
            self.graph.info.publish(self.camera_info(stamp))
        depth = changed.get("depth", self.depth(stamp + round(depth_shift * 1e9)))
        rgb = changed.get("rgb", self.rgb(stamp))
        for publisher, message in ((self.graph.depth, depth), (self.graph.rgb, rgb)):
            if message is not None:
                publisher.publish(message)
        return stamp

    def stream(self, seconds: float, rate: float = 20.0, **how: Any) -> list[int]:
        """Frames at a rate; returns their stamps."""
        begin, stamps = time.monotonic(), []
        while time.monotonic() - begin < seconds:
            stamps.append(self.publish(**how))
            time.sleep(max(begin + len(stamps) / rate - time.monotonic(), 0))
        return stamps

    def stream_until(self, condition: Callable[[], bool], what: str, rate: float = 20.0, **how: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
            self.publish(**how)
            time.sleep(1 / rate)

    def stream_until_pose(self, newer_than_ns: int | None = None) -> PoseStamped:
        """Stream until a pose of a frame that is newer than now (or the stamp) comes."""
        since = time.time_ns() if newer_than_ns is None else newer_than_ns
        self.stream_until(lambda: any(stamp_of(p) > since for p, _ in self.graph.poses), "a pose")
        return self.graph.poses[-1][0]


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def wait_for(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.02)


@contextmanager
def running_node(
    folder: Path,
    *parameters: str,
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    active: bool = True,
    fresh: bool = False,
    ends: tuple[int, ...] = (0,),
    **graph_options: Any,
) -> Iterator[tuple[Node, Graph]]:
    """The node and a graph around it; ``parameters`` as name:=value. Fails on an unclean end.

    ends: the statuses with which it may end.
    """
    namespace = f"/t{os.getpid()}_{next(_numbers)}"
    objects = objects_yaml(folder)
    given: list[str] = []
    for parameter in (f"objects_file:={objects}", "debug.diagnostics_rate:=10.0", "device:=cpu", *parameters):
        given += ["-p", parameter]
    graph = Graph(namespace, **graph_options)
    node = Node(folder, namespace, [*arguments, *given], environment or {}, fresh)
    graph.alive = lambda: node.returncode is None
    try:
        if active:
            graph.wait_active()
        yield node, graph
    except BaseException:
        print(node.log)
        raise
    finally:
        took = node.stop()
        graph.close()
    assert node.returncode in ends, node.log
    assert took < on_idle(2.0), f"ending took {took:.1f} s:\n{node.log}"
    assert "terminate called" not in node.log, node.log
