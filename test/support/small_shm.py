"""Do images arrive in a container's /dev/shm? ``make small-shm``, as root: python test/support/small_shm.py [--mebibytes 64] ...

In a mount namespace of its own with a /dev/shm of that size: a camera (1280x720, 30 Hz, rgb8 and 16UC1), the node with a double
pipeline and a subscriber of the debug image, each a process, started as the launch files do. Exits 1 when the node gets less
than 99 % of the images, or the subscriber no picture.
"""

from __future__ import annotations

import argparse
import array
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]
SIZE = (1280, 720)
NAMESPACE = "/small_shm"


def camera(reliable: bool, seconds: float, ready: Path) -> None:
    """Publishes frames; prints how many. Starts with the file ``ready``, so that everything is connected."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, Image

    rclpy.init()
    node = rclpy.create_node("camera", namespace=NAMESPACE)
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    width, height = SIZE
    rgb = Image(width=width, height=height, encoding="rgb8", step=3 * width)
    rgb.data = array.array("B", bytes(3 * width * height))
    depth = Image(width=width, height=height, encoding="16UC1", step=2 * width)
    depth.data = array.array("B", array.array("H", [1000]).tobytes() * (width * height))
    info = CameraInfo(width=width, height=height, k=[900.0, 0.0, 640.0, 0.0, 900.0, 360.0, 0.0, 0.0, 1.0])
    publishers = [
        node.create_publisher(type(message), topic, QoSProfile(depth=5, reliability=policy))
        for topic, message in (("rgb/camera_info", info), ("depth/image", depth), ("rgb/image", rgb))
    ]
    while not ready.exists() or publishers[2].get_subscription_count() == 0:
        publishers[0].publish(info)  # the node warms up for it
        time.sleep(0.05)
    time.sleep(0.5)
    begin, sent = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        stamp = time.time_ns()
        for publisher, message in zip(publishers, (info, depth, rgb), strict=True):
            message.header.frame_id = "camera"
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            publisher.publish(message)
        sent += 1
        time.sleep(max(begin + sent / 30 - time.monotonic(), 0.0))
    print(sent, flush=True)
    time.sleep(5)
    node.destroy_node()
    rclpy.shutdown()


def watcher() -> None:
    """Counts pictures; prints how many when it is told to end."""
    import rclpy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("watcher", namespace=NAMESPACE)
    seen: list[int] = []
    node.create_subscription(Image, "pose_node/debug_image", lambda message: seen.append(len(message.data)), 5)
    try:
        rclpy.spin(node)
    except BaseException:
        print(len(seen), flush=True)


def counted(timeout: float) -> dict[str, str]:
    """The node's diagnostics of its input and processing, when they do not change any more."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray

    rclpy.init()
    node = rclpy.create_node("counter", namespace=NAMESPACE)
    found: dict[str, str] = {}
    same = [0, ""]

    def store(message: DiagnosticArray) -> None:
        for status in message.status:
            found.update({v.key: v.value for v in status.values} if "backend" not in status.name else {})
        state = f"{found.get('images_rgb')} {found.get('processed')}"
        same[:] = [int(same[0]) + 1 if state == same[1] else 0, state]

    node.create_subscription(DiagnosticArray, "/diagnostics", store, 10)
    end = time.monotonic() + timeout
    while time.monotonic() < end and int(same[0]) < 3:
        rclpy.spin_once(node, timeout_sec=0.1)
    node.destroy_node()
    rclpy.shutdown()
    return found


def measure(profile: str, reliable: bool, seconds: float, library: str) -> bool:
    from rfdetr_foundationpose.ros import transport
    from support.ros_support import objects_yaml

    for variable in (transport.NEW, transport.OLD):  # the tests' own
        os.environ.pop(variable, None)
    chosen = transport.choose(profile, SIZE)
    print(f"{chosen.said}; camera {'reliable' if reliable else 'best effort'}", flush=True)
    environment = {**os.environ, **chosen.environment}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "node.log"
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}", "-p", f"objects_file:={objects_yaml(folder)}"]
        arguments += ["-p", "device:=cpu", "-p", "input.max_age:=0.0", "-p", f"input.sync_library:={library}"]
        started: list[subprocess.Popen[str]] = []

        def start(*words: str, output: object = subprocess.PIPE) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=output, stderr=subprocess.STDOUT, text=True, env=environment
            )  # type: ignore[call-overload]
            started.append(process)
            return process

        try:
            ready = folder / "ready"
            sender = start(
                __file__, "--camera", str(ready), "--seconds", str(seconds), *(["--reliable"] if reliable else [])
            )
            seer = start(__file__, "--watcher")
            with log.open("w") as file:
                node = start(str(ROOT / "test" / "support" / "ros_double_start.py"), *arguments, output=file)
                wait(lambda: "active" in log.read_text(), log)
            time.sleep(2.0)
            before = processor_seconds(node.pid)
            ready.touch()
            assert sender.stdout is not None
            line = sender.stdout.readline()
            if not line.strip().isdigit():
                raise SystemExit(line + sender.communicate()[0])
            sent = int(line)
            used = processor_seconds(node.pid) - before
            values = counted(40.0)
            seer.send_signal(2)
            pictures = int((seer.communicate()[0].splitlines() or ["0"])[0])
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(20)
    left = sum(path.stat().st_blocks * 512 for path in Path("/dev/shm").iterdir())
    came = {key: int(values.get(key, 0)) for key in ("images_rgb", "images_depth", "pairs", "processed")}
    print(f"sent {sent}; {came}; {pictures} pictures; {left} bytes left in /dev/shm", flush=True)
    age = values.get("end_to_end_ms_p50_p95_max", "")
    print(f"{library}: age of poses p50, p95, max {age} ms; the node used {used:.1f} s of a processor", flush=True)
    return min(came["images_rgb"], came["images_depth"]) >= 0.99 * sent and pictures > 0


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(log.read_text())
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--profile", default="auto", help="as fastdds_profile: auto, none or a file")
    parser.add_argument("--reliable", action="store_true", help="the camera publishes reliably")
    parser.add_argument("--sync-library", default="own", help="input.sync_library")
    parser.add_argument("--seconds", type=float, default=10.0)
    for hidden in ("--camera", "--inside"):
        parser.add_argument(hidden, nargs="?", const="yes", help=argparse.SUPPRESS)
    parser.add_argument("--watcher", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watcher:
        watcher()
        return 0
    if given.camera:
        camera(given.reliable, given.seconds, Path(given.camera))
        return 0
    if not given.inside:
        mount = f'mount -t tmpfs -o size={given.mebibytes}m tmpfs /dev/shm && exec "$@"'
        again = [sys.executable, __file__, "--inside", *sys.argv[1:]]
        return subprocess.run(["unshare", "--mount", "bash", "-c", mount, "-", *again], check=False).returncode
    os.environ |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return 0 if measure(given.profile, given.reliable, given.seconds, given.sync_library) else 1


if __name__ == "__main__":
    sys.exit(main())
