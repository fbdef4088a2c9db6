"""The Fast DDS profile fits distribution, shared memory and image size, and says what it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rfdetr_foundationpose.ros import transport

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_profile(monkeypatch, tmp_path):
    for name in (transport.NEW, transport.OLD, "RMW_IMPLEMENTATION", "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport.tempfile, "gettempdir", lambda: str(tmp_path))


def sizes(choice: transport.Choice) -> tuple[int, int]:
    (path,) = choice.environment.values()
    text = Path(path).read_text()
    values = [int(re.search(rf"<{tag}>(\d+)<", text)[1]) for tag in ("segment_size", "maxMessageSize")]
    return values[0], values[1]


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("humble", transport.OLD), ("jazzy", transport.OLD), ("kilted", transport.NEW), ("lyrical", transport.NEW)],
)
def test_only_the_variable_of_the_distribution_is_set(monkeypatch, distribution, variable):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert list(transport.choose(shared=1000 * MIB).environment) == [variable]


@pytest.mark.parametrize(("rclpy", "variable"), [("7.1.6", transport.OLD), ("9.1.2", transport.NEW)])
def test_wheels_that_set_no_distribution_are_told_by_their_version(monkeypatch, rclpy, variable):
    monkeypatch.setattr(transport, "version", lambda _name: rclpy)
    assert transport.profiles_variable() == variable


def test_four_processes_with_their_segments_fit_into_what_a_container_has():
    segment, message = sizes(transport.choose(shared=64 * MIB))
    assert 4 * (segment + transport.OVERHEAD) <= 64 * MIB
    assert segment >= 12 * MIB
    assert message >= 1280 * 720 * 3
    assert "13 MiB" in transport.choose(shared=64 * MIB).said


def test_with_room_the_segment_follows_the_image_size():
    small, _ = sizes(transport.choose(size=(640, 480), shared=10_000 * MIB))
    large, message = sizes(transport.choose(size=(3840, 2160), shared=10_000 * MIB))
    assert small < 16 * MIB < 300 * MIB < large
    assert message > 3840 * 2160 * 3


def test_too_little_room_is_said_with_what_to_give():
    choice = transport.choose(size=(1920, 1080), shared=64 * MIB)
    assert not choice.fits
    assert choice.environment == {}
    needed = int(re.search(r"--shm-size=(\d+)m", choice.said)[1])
    assert transport.choose(size=(1920, 1080), shared=needed * MIB).fits


def test_what_the_user_chose_is_left_alone(monkeypatch, tmp_path):
    assert transport.choose("none").environment == {}
    mine = tmp_path / "mine.xml"
    mine.touch()
    assert list(transport.choose(str(mine)).environment.values()) == [str(mine)]
    with pytest.raises(FileNotFoundError, match="nowhere.xml"):
        transport.choose("nowhere.xml")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_zenoh_cpp")
    assert transport.choose().environment == {}
    monkeypatch.delenv("RMW_IMPLEMENTATION")
    monkeypatch.setenv(transport.OLD, "theirs.xml")
    assert transport.choose().environment == {}
    assert "theirs.xml" in transport.choose().said


def test_a_folder_that_is_another_s_is_not_written_into(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / f"rfdetr_foundationpose-{os.getuid()}").symlink_to(other)
    assert sizes(transport.choose(shared=1000 * MIB))
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("1280x720", (1280, 720)), ("848X480x30", (848, 480)), ("big", None), ("0x3", None), ("1x2x3x4", None)],
)
def test_image_sizes_are_read_as_drivers_write_them(text, size):
    if size is None:
        with pytest.raises(ValueError, match="1280x720"):
            transport.parse_size(text)
    else:
        assert transport.parse_size(text) == size


@pytest.mark.parametrize(
    ("middleware", "reliable", "said"),
    [
        ("", False, "config/fastdds.xml"),
        ("", True, "input.image_transport"),
        ("rmw_cyclonedds_cpp", False, 'SocketReceiveBufferSize min="10MB"'),
        ("rmw_cyclonedds_cpp", True, "net.core.rmem_max"),
        ("rmw_zenoh_cpp", False, "rmw_zenoh_cpp: turn its shared memory on"),
    ],
)
def test_what_helps_against_lost_images_is_of_the_middleware_in_use(monkeypatch, middleware, reliable, said):
    for variable in (transport.NEW, transport.OLD):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RMW_IMPLEMENTATION", middleware)
    assert said in transport.remedy(reliable)
    assert ("needs no Fast DDS profile" in transport.choose().said) == bool(middleware)
