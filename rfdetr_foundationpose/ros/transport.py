"""Which Fast DDS profile images need here: distribution, room in shared memory, image size. Needs no rclpy.

A writer puts a message into its participant's segment (default: 0.5 MB). An image that does not fit goes over UDP in parts of
64 kB, most of which a best-effort reader loses. Segments that together do not fit into /dev/shm are as bad: the last to come
has none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..resources import config_dir
from . import shared_memory

# The same variable by distribution; setting both is a deprecation warning in every process of a newer one.
NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
OLDER = ("foxy", "galactic", "humble", "iron", "jazzy")
# rclpy's major version from Kilted on, for wheels, which set no ROS_DISTRO.
KILTED = 9
# A segment holds so many frames (colour, depth, picture for debugging) at best; ENOUGH are enough.
FRAMES, ENOUGH = 5, 1.5
# So many participants have images: driver, node, rviz and one more.
PROCESSES = 4
# Each has a second segment for discovery, and ports.
OVERHEAD = 1_000_000
MIB = 1 << 20
IMAGE_SIZE = (1280, 720)
# Cyclone DDS asks for 1 MB, whatever the kernel would allow: less than one image.
CYCLONE = "CYCLONEDDS_URI='<CycloneDDS><Domain><Internal><SocketReceiveBufferSize min=\"10MB\"/></Internal></Domain></CycloneDDS>'"


@dataclass(frozen=True)
class Choice:
    """environment: variables to set. said: what was chosen and why. fits: whether images pass."""

    environment: Mapping[str, str]
    said: str
    fits: bool = True


def profiles_variable() -> str:
    """The variable that this distribution's Fast DDS reads."""
    distribution = os.environ.get("ROS_DISTRO", "")
    if distribution:
        return OLD if distribution in OLDER else NEW
    for name in ("ros-rclpy", "rclpy"):
        with suppress(PackageNotFoundError, ValueError):
            return OLD if int(version(name).split(".")[0]) < KILTED else NEW
    return NEW


def choose(
    profile: str = "auto",
    size: tuple[int, int] = IMAGE_SIZE,
    folder: Path = shared_memory.FOLDER,
    shared: int | None = None,
) -> Choice:
    """What to set for ``profile``: auto, none, or a file. size: (width, height) of the colour images.

    shared: bytes free in shared memory; None looks. Raises FileNotFoundError for a profile that does not exist.
    """
    if profile in ("none", ""):
        return Choice({}, "no Fast DDS profile (fastdds_profile:=none)")
    own = next((name for name in (NEW, OLD) if os.environ.get(name)), None)
    if own is not None:
        return Choice({}, f"Fast DDS profile of the environment ({own}={os.environ[own]})")
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if "fastrtps" not in middleware:
        return Choice({}, f"{middleware} needs no Fast DDS profile")
    if profile != "auto":
        path = Path(profile).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"fastdds_profile:={profile} does not exist; give a file, auto or none")
        return Choice({profiles_variable(): str(path)}, f"Fast DDS profile {path}")
    return _automatic(size, _room(folder) if shared is None else shared)


def remedy(reliable: bool) -> str:
    """What helps where images get lost on their way into this process."""
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if "cyclonedds" in middleware:
        return f"Cyclone DDS needs larger receive buffers: sudo sysctl -w net.core.rmem_max=33554432, then start the node with {CYCLONE}"
    if reliable:
        return "the network is too slow for them: set input.image_transport to compressed, or lower the camera's rate"
    if "fastrtps" not in middleware:
        return f"{middleware}: turn its shared memory on, or let the camera publish reliably"
    own = next((name for name in (NEW, OLD) if os.environ.get(name)), None)
    if own is not None:
        return (
            f"give the camera's process the profile of this one ({own}={os.environ[own]}), or let it publish reliably"
        )
    return (
        f"Fast DDS loses images that are larger than its buffers: start camera and node with {profiles_variable()}="
        f"{config_dir() / 'fastdds.xml'}, as our launch files do, or let the camera publish reliably"
    )


def _automatic(size: tuple[int, int], room: int) -> Choice:
    width, height = size
    picture = width * height * 3
    frame = 2 * picture + width * height * 2
    share = int((room - PROCESSES * OVERHEAD) * 0.9 / PROCESSES)
    segment = min(FRAMES * frame, share)
    what = f"{width}x{height} images, {room / MIB:.0f} MiB free in /dev/shm"
    if segment < ENOUGH * frame:
        need = int((ENOUGH * frame * PROCESSES / 0.9 + PROCESSES * OVERHEAD) / MIB) + 1
        return Choice(
            {},
            f"no Fast DDS profile: {what} are too few for {PROCESSES} processes, so that best-effort images get lost; give a "
            f"container --shm-size={need}m or more, or --ipc=host, or use input.reliability:=auto with a reliable camera",
            False,
        )
    segment = segment // MIB * MIB
    path = _write(segment, max(2 * MIB, min(segment // 2, picture * 4 // 3 + MIB)))
    return Choice({profiles_variable(): str(path)}, f"Fast DDS segments of {segment // MIB} MiB ({what})")


def _write(segment: int, message: int) -> Path:
    """The shipped profile with other sizes, in a folder of this user's."""
    text = (config_dir() / "fastdds.xml").read_text()
    for tag, value in (("segment_size", segment), ("maxMessageSize", message)):
        head, rest = text.split(f"<{tag}>", 1)
        text = f"{head}<{tag}>{value}</{tag}>{rest.split(f'</{tag}>', 1)[1]}"
    folder = Path(tempfile.gettempdir()) / f"rfdetr_foundationpose-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="rfdetr_foundationpose-"))
    path = folder / f"fastdds-{segment // MIB}-{message // 1024}.xml"
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)
    return path


def _room(folder: Path) -> int:
    shared_memory.remove_left_behind(folder)
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of ``1280x720``, also with a rate behind: ``1280x720x30``. Raises ValueError."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"image size {text!r} is no WIDTHxHEIGHT, e.g. 1280x720")
    return int(parts[0]), int(parts[1])
