"""The thread that reads the camera's topics, and images that are never made Python messages."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import count

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.ros import rcl_bytes, reader
from rfdetr_foundationpose.ros.inputs import Inputs
from rfdetr_foundationpose.ros.reader import Reader
from rfdetr_foundationpose.ros.serialized_images import SerializedImage, image_take, read_image
from rfdetr_foundationpose.ros.worker import LatestFrame
from support.ros_support import PATIENCE, Camera, Graph, wait_for

FIELDS = ("height", "width", "encoding", "is_bigendian", "step")
KINDS = [("rgb8", 3, "camera"), ("16UC1", 2, "c"), ("bayer_rggb8", 1, ""), ("32FC1", 4, "camera_color_optical_frame")]
_numbers = count()


def image(rows=3, columns=5, encoding="rgb8", size=3, frame_id="camera", padding=0, stamp=1_796_043_582_583_152_362):
    step = columns * size + padding
    message = Image(height=rows, width=columns, encoding=encoding, step=step)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.data.frombytes(np.random.default_rng(rows).integers(0, 255, rows * step).astype(np.uint8).tobytes())
    return message


def memory(message) -> np.ndarray:
    return np.frombuffer(bytearray(serialize_message(message)), np.uint8)


def assert_same(found, message) -> None:
    assert found.header == message.header
    assert [getattr(found, f) for f in FIELDS] == [getattr(message, f) for f in FIELDS]
    assert bytes(found.data) == message.data.tobytes()


def big_endian(message) -> np.ndarray:
    """The message as a middleware of the other byte order writes it."""

    def text(value: str) -> None:
        data = value.encode() + b"\0"
        number(len(data))
        out.extend(data)

    def number(value: int) -> None:
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(value.to_bytes(4, "big"))

    out = bytearray()
    number(message.header.stamp.sec)
    number(message.header.stamp.nanosec)
    text(message.header.frame_id)
    number(message.height)
    number(message.width)
    text(message.encoding)
    out.append(message.is_bigendian)
    number(message.step)
    number(len(message.data))
    return np.frombuffer(bytearray(b"\0\0\0\0") + out + message.data.tobytes(), np.uint8)


@pytest.mark.parametrize(("encoding", "size", "frame_id"), KINDS)
@pytest.mark.parametrize("padding", [0, 7])
def test_an_image_is_read_as_rclpy_reads_it(encoding, size, frame_id, padding):
    message = image(encoding=encoding, size=size, frame_id=frame_id, padding=padding)
    for serialized in (memory(message), big_endian(message)):
        assert deserialize_message(serialized.tobytes(), Image) == message
        found = read_image(serialized)
        assert_same(found, message)
        assert np.shares_memory(found.data, serialized), "its bytes are not copied"


def test_what_is_cut_short_or_of_another_representation_is_left_to_rclpy():
    serialized = memory(image())
    assert all(read_image(serialized[:n]) is None for n in range(len(serialized)))
    other = serialized.copy()
    other[1] = 7
    assert read_image(other) is None
    longer = serialized.copy()
    longer[12:16] = 255  # the length of frame_id
    assert read_image(longer) is None


@pytest.fixture()
def graph():
    graph = Graph(f"/reader{next(_numbers)}", reliable=True)
    yield graph
    graph.close()


@pytest.fixture()
def reading(graph):
    errors: list = []
    made = Reader(graph.context, lambda *error: errors.append(error))
    made.errors = errors
    yield made
    assert made.close(60) and made.close()


def subscribed(graph, reading, callback, take=reader.message, kind=Image, topic="rgb/image", depth=100):
    qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
    made = graph.node.create_subscription(kind, topic, callback, qos, callback_group=reading.group)
    reading.add(made, take)
    publisher = {"rgb/image": graph.rgb, "rgb/camera_info": graph.info}[topic]
    wait_for(lambda: publisher.get_subscription_count() > 0, "the subscription")
    return made


def asking():
    """Sizes of the memory that was asked for, and what gives it."""
    asked: list[int] = []
    return asked, lambda size: (asked.append(size), np.empty(size, np.uint8))[1]


def test_images_that_grow_and_shrink_are_taken_whole_and_are_not_overwritten(graph, reading):
    sizes = [(2, 3), (700, 900), (1, 1), (720, 1280), (720, 1280), (5, 4)]
    sent = [image(rows, columns, stamp=i) for i, (rows, columns) in enumerate(sizes)] + [Image(encoding="rgb8")]
    taken: list = []
    asked, make = asking()
    subscribed(graph, reading, taken.append, image_take(make))
    for message in sent:
        graph.rgb.publish(message)
    wait_for(lambda: len(taken) == len(sent), "the images")
    assert all(isinstance(found, SerializedImage) for found in taken) and reading.errors == []
    for found, message in zip(taken, sent, strict=True):
        assert_same(found, message)
    assert len(asked) <= 2 * len(sent), "memory is asked for once an image, and once more where that was too small"


def test_memory_of_large_images_is_left_when_the_camera_turns_to_small_ones(graph, reading):
    """A driver whose resolution changes from 4K to VGA: of VGA images each would hold 24 MB, locked for a GPU."""
    taken: list = []
    asked, make = asking()
    subscribed(graph, reading, taken.append, image_take(make))
    for message in (image(720, 1280), *[image(48, 64)] * 3):
        graph.rgb.publish(message)
    wait_for(lambda: len(taken) == 4, "the images")
    assert asked[0] > 720 * 1280
    assert len(taken[1].data) < asked[-1] < 2 * len(taken[1].data) and asked[-2] == asked[-1]


def test_an_image_comes_whole_where_the_memory_for_it_cannot_be_had(graph, reading):
    """Fast DDS does not look whether it got memory."""

    def refuse(_size: int) -> np.ndarray:
        raise MemoryError("no more may be locked")

    taken: list = []
    subscribed(graph, reading, taken.append, image_take(refuse))
    sent = [image(40, 30), image(400, 300), image(400, 300)]
    for message in sent:
        graph.rgb.publish(message)
    wait_for(lambda: len(taken) == len(sent), "the images")
    for found, message in zip(taken, sent, strict=True):
        assert_same(found, message)


def test_what_cannot_be_taken_is_told_and_the_reader_goes_on(graph, reading):
    class Gone:
        """A subscription that the middleware knows nothing of."""

        class handle:
            pointer = None

        topic_name = "/gone"

    take = image_take(lambda size: np.empty(size, np.uint8))
    with pytest.raises(RuntimeError, match="image of /gone cannot be taken: .*invalid"):
        take(Gone)
    failures = [RuntimeError("first")]
    taken: list = []

    def first_fails(subscription):
        if failures:
            raise failures.pop()
        return take(subscription)

    subscribed(graph, reading, taken.append, first_fails)
    graph.rgb.publish(image())
    wait_for(lambda: taken, "the image")
    assert [(where, str(error)) for where, error in reading.errors] == [("callback_error", "first")]


def test_callbacks_run_in_the_readers_thread_alone_and_one_that_fails_holds_none_up(graph, reading):
    threads: Counter[str] = Counter()
    heights: list[int] = []

    def look(message) -> None:
        threads[threading.current_thread().name] += 1
        heights.append(message.height)
        if message.height == 2:
            raise RuntimeError("two")

    subscribed(graph, reading, look)
    infos: list = []
    subscribed(graph, reading, infos.append, kind=CameraInfo, topic="rgb/camera_info")
    for rows in (1, 2, 3):
        graph.rgb.publish(image(rows))
        graph.info.publish(CameraInfo(height=rows))
    wait_for(lambda: len(heights) == len(infos) == 3, "the messages")
    assert heights == [1, 2, 3] and [m.height for m in infos] == [1, 2, 3]
    assert set(threads) == {"camera"}
    assert [(where, str(error)) for where, error in reading.errors] == [("callback_error", "two")]


def test_an_executor_sleeps_while_images_come(graph, reading, monkeypatch):
    """Fast DDS also wakes who waits for a subscription's QoS events, with every message that nobody has taken yet."""
    taken: list = []
    subscribed(graph, reading, lambda message: (time.sleep(0.02), taken.append(message)))
    time.sleep(0.5)  # what discovery had to tell is told
    turns: list[float] = []
    looked = graph._executor.get_nodes
    monkeypatch.setattr(graph._executor, "get_nodes", lambda: (turns.append(time.monotonic()), looked())[1])
    begin = time.monotonic()
    for _ in range(50):
        graph.rgb.publish(image())
        time.sleep(0.005)
    wait_for(lambda: len(taken) == 50, "the images")
    seconds = time.monotonic() - begin
    # The executor of the tests looks ten times a second by itself; a wake-up for each image would be fifty more.
    assert len(turns) < 10 * seconds * 2 + 15


def test_what_is_removed_is_not_called_any_more_and_may_be_destroyed(graph, reading):
    taken: list = []
    begun, release = threading.Event(), threading.Event()

    def slow(message) -> None:
        begun.set()
        assert release.wait(60)
        taken.append(message)

    first = subscribed(graph, reading, slow)
    for _ in range(3):
        graph.rgb.publish(image())
    assert begun.wait(60)
    removing = threading.Thread(target=reading.remove, args=(first, 60))
    removing.start()
    removing.join(0.2)
    assert removing.is_alive(), "who removes it waits for the callback under way"
    release.set()
    removing.join(60)
    assert not removing.is_alive() and len(taken) == 1
    graph.node.destroy_subscription(first)
    graph.rgb.publish(image())
    again: list = []
    subscribed(graph, reading, again.append)
    wait_for(lambda: graph.rgb.publish(image(7)) or again, "the next subscription's image")
    assert len(taken) == 1 and again[-1].height == 7 and reading.errors == []


def test_what_is_destroyed_before_the_reader_knows_is_no_error(graph, reading):
    """Who takes a subscription away does not wait for ever for a thread that is held up."""
    first = subscribed(graph, reading, lambda _: None)
    event = first.event_handlers[0]
    held, release = threading.Event(), threading.Event()
    add = event.add_to_wait_set

    def late(wait_set) -> None:
        held.set()
        assert release.wait(PATIENCE)
        add(wait_set)

    event.add_to_wait_set = late
    graph.rgb.publish(image())
    assert held.wait(PATIENCE)
    reading.remove(first, 0.05)
    graph.node.destroy_subscription(first)
    release.set()
    taken: list = []
    subscribed(graph, reading, taken.append)
    wait_for(lambda: graph.rgb.publish(image(7)) or taken, "the next subscription's image")
    assert taken[-1].height == 7 and reading.errors == []


def test_a_shutdown_of_ros_does_not_wait_for_the_reader_which_waits_for_it(graph):
    """rclpy destroys the nodes, and with one of ours its reader, with the context's lock held."""
    made = Reader(graph.context, print)
    ended: list[bool] = []
    closing = threading.Thread(target=lambda: ended.append(made.close(PATIENCE)), daemon=True)
    with graph.context._lock:
        made._wake.trigger()
        time.sleep(0.3)  # it is awake, and looks whether ROS is up
        closing.start()
        closing.join(PATIENCE)
    assert ended == [True]


def test_nobody_waits_for_a_reader_that_ends_with_ros():
    graph = Graph(f"/reader{next(_numbers)}", reliable=True)
    made = Reader(graph.context, print)
    begun, release = threading.Event(), threading.Event()
    first = subscribed(graph, made, lambda _: (begun.set(), release.wait(PATIENCE)))
    graph.rgb.publish(image())
    assert begun.wait(PATIENCE)
    removing = threading.Thread(target=made.remove, args=(first, 10 * PATIENCE), daemon=True)
    removing.start()
    wait_for(lambda: not made._entries, "the removal")
    graph.close()
    release.set()
    removing.join(PATIENCE)
    assert not removing.is_alive() and made.close()


def test_an_executor_never_waits_for_what_is_read_elsewhere(graph, monkeypatch):
    """Also not between a subscription and the reader's knowing it: a QoS event belongs to one wait set at a time."""
    waited_for: list = []
    asked, added = graph._executor.can_execute, Reader.add

    def can_execute(entity) -> bool:
        answer = asked(entity)
        if answer:
            waited_for.append(entity)
        return answer

    def add_late(self, *arguments) -> None:
        time.sleep(0.3)  # the executor of the tests wakes ten times a second
        added(self, *arguments)

    monkeypatch.setattr(graph._executor, "can_execute", can_execute)
    monkeypatch.setattr(Reader, "add", add_late)
    made = Inputs(graph.node, Config(), (), LatestFrame(), print, print)
    made.open()
    read = [s for s in graph.node.subscriptions if s.callback_group is made._reader.group]
    assert sorted(s.topic_name.rsplit("/", 2)[-2] for s in read) == ["depth", "rgb", "rgb"]
    events = [event for subscription in read for event in subscription.event_handlers]
    assert waited_for and events and not {*read, *events} & set(waited_for)
    made.close()


def test_a_subscription_of_another_group_is_refused(graph, reading):
    made = graph.node.create_subscription(Image, "rgb/image", print, 1)
    with pytest.raises(ValueError, match="rgb/image is in another callback group"):
        reading.add(made)


def test_a_publisher_of_other_qos_is_said(graph, reading, capfd):
    subscribed(graph, reading, lambda _: None)
    other = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.node.create_publisher(Image, "rgb/image", other)
    said = ""

    def warned() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "incompatible QoS" in said

    wait_for(warned, "the warning")


def test_where_rcl_cannot_be_called_images_come_as_messages(graph, monkeypatch):
    def missing():
        raise AttributeError("rcl_take_serialized_message")

    monkeypatch.setattr(rcl_bytes, "Library", missing)
    assert image_take(lambda size: np.empty(size, np.uint8)) is None
    latest = LatestFrame()
    made = Inputs(graph.node, Config(), (), latest, print, print)
    made.open()
    camera = Camera(graph)

    def arrived() -> bool:
        camera.publish()
        return latest.tally().received > 0

    wait_for(arrived, "a pair")
    pair = latest.take(1)
    assert isinstance(pair.rgb, Image) and isinstance(pair.depth, Image)
    made.close()


@pytest.mark.parametrize("message", [image(720, 1280), image(encoding="16UC1", size=2), CameraInfo(width=7)])
def test_bytes_are_published_from_where_they_are(graph, reading, message):
    found: list = []
    subscription = graph.node.create_subscription(
        type(message), "bytes", found.append, 10, callback_group=reading.group
    )
    reading.add(subscription)
    publisher = graph.node.create_publisher(type(message), "bytes", 10)
    wait_for(lambda: publisher.get_subscription_count() > 0, "match")
    publish, sent = rcl_bytes.PublishBytes(publisher), memory(message)
    publish(sent)
    wait_for(lambda: found == [message], "the message")
    message.header.frame_id = "another, of another length"
    publish(memory(message))
    sent[:] = 0  # what was sent is the middleware's own
    wait_for(lambda: found[1:] == [message], "the second message")
    graph.node.destroy_publisher(publisher)
    with pytest.raises(reader.rclpy_implementation.InvalidHandle):
        publish(sent)
