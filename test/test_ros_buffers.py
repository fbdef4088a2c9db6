"""Images in another memory than the CPU's, as ROS 2 Lyrical brings them: with doubles of rosidl_buffer and cuda_buffer, which
have the real ones' interface and refuse what they refuse. None of it has met the real ones."""

from __future__ import annotations

import array
import ctypes
import sys
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from rfdetr_foundationpose import CameraIntrinsics, Config, Frame, Pipeline, device_frame
from rfdetr_foundationpose.camera import images
from rfdetr_foundationpose.config import ConfigError, InputConfig
from rfdetr_foundationpose.ros import bridge, buffers, compat
from rfdetr_foundationpose.types import InputError
from support.copies import largest_copies

ROOT = Path(__file__).resolve().parent.parent
ENCODINGS = ["rgb8", "rgba8", "bgr8", "bgra8", "8UC3", "8UC4", "16UC1", "mono16", "32FC1"]


class Buffer:
    """rosidl_buffer.Buffer: no buffer protocol, and nothing by index. gpu: where the backend "cuda" has its memory."""

    gpu = "cuda" if torch.cuda.is_available() else "cpu"

    def __init__(self, data: bytes, backend: str) -> None:
        self.backend_type = backend
        self._data = data
        self.memory = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if backend == "cuda":
            self.memory = self.memory.to(self.gpu)
        self.leases = 0

    def __len__(self) -> int:
        return len(self._data)

    def __array__(self, *_: object, **__: object) -> None:
        raise TypeError("a rosidl Buffer has no buffer protocol")

    def to_array(self) -> array.array:
        return array.array("B", self.memory.cpu().numpy().tobytes())

    def to_bytes(self) -> bytes:
        return self.to_array().tobytes()


@pytest.fixture
def cuda_buffer(monkeypatch):
    """CudaBuffer.from_input_buffer: a lease in a stream's order, with a device pointer. Stream 0 is one of its own."""
    module = ModuleType("cuda_buffer")
    module.__spec__ = ModuleSpec("cuda_buffer", None)
    module.streams, module.device_id = [], 0

    @contextmanager
    def from_input_buffer(buffer: Buffer, stream: int | None = None):
        assert stream, "the lease would not be in the order of torch's stream"
        module.streams.append(stream)
        buffer.leases += 1
        yield SimpleNamespace(device_ptr=buffer.memory.data_ptr(), device_id=module.device_id)
        buffer.leases -= 1

    module.CudaBuffer = SimpleNamespace(from_input_buffer=from_input_buffer)
    monkeypatch.setitem(sys.modules, "cuda_buffer", module)
    return module


def message(encoding: str, backend: str | None, padding: int = 8) -> SimpleNamespace:
    """A small image of noise; backend None: as array.array, as it always came."""
    item = {"16UC1": 2, "mono16": 2, "32FC1": 4}.get(encoding, 1)
    channels = {"rgba8": 4, "bgra8": 4, "8UC4": 4}.get(encoding, 3 if item == 1 else 1)
    height, width = 6, 10
    step = width * channels * item + padding
    data = np.random.default_rng(0).integers(0, 255, height * step, np.uint8)
    if encoding == "32FC1":
        data = np.random.default_rng(0).random(height * step // 4).astype(np.float32).view(np.uint8)
    held = array.array("B", data.tobytes()) if backend is None else Buffer(data.tobytes(), backend)
    return SimpleNamespace(height=height, width=width, step=step, encoding=encoding, is_bigendian=0, data=held)


def read(made: SimpleNamespace) -> np.ndarray:
    if made.encoding in ("16UC1", "mono16", "32FC1"):
        return images.image_to_depth(made, 0.001)[0]
    return images.image_to_rgb(made)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("backend", ["cpu", "cuda", "whatever comes"])
def test_a_buffer_is_read_through_the_host_where_it_must_be(encoding, backend):
    made = message(encoding, backend)
    with pytest.raises(TypeError):
        read(made)
    np.testing.assert_array_equal(read(buffers.on_host(made)), read(message(encoding, None)))
    with ExitStack() as leases:
        assert buffers.on_device(made, "cpu", leases) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pixels_over_the_memory_of_a_message_are_those_of_the_array(encoding):
    made = message(encoding, "cpu")
    found = device_frame.pixels(made.data.memory, made)
    np.testing.assert_array_equal(found.numpy(), read(message(encoding, None)))
    if not encoding.startswith(("bgr", "8UC")):
        assert found.data_ptr() == made.data.memory.data_ptr()


def test_a_message_as_it_always_came_is_left_alone():
    made = message("rgb8", None)
    assert buffers.on_host(made) is made
    with ExitStack() as leases:
        assert buffers.on_device(made, "cuda:0", leases) is None


@pytest.mark.parametrize(
    "changed", [{"encoding": "bayer_rggb8"}, {"step": 3}, {"width": 0}, {"encoding": "16UC1", "is_bigendian": 1}]
)
def test_what_the_gpu_cannot_read_goes_through_the_host_which_says_why(changed):
    made = message("rgb8", "cuda")
    made.__dict__.update(changed)
    with ExitStack() as leases:
        assert buffers.on_device(made, "cuda:0", leases) is None


@pytest.mark.parametrize(("rgb", "depth"), [("cpu", None), (None, "cuda"), ("cuda", "whatever comes")])
@pytest.mark.parametrize("rectify", [False, True])
def test_colour_and_depth_may_come_in_different_memories(rgb, depth, rectify):
    settings = InputConfig(depth_unit=0.0001, rectify=rectify)
    expected = message("bgr8", None), message("16UC1", None)
    with ExitStack() as leases:
        color, raw, scale = bridge.pair_to_images(
            message("bgr8", rgb), message("16UC1", depth), settings, "cpu", leases, Logger()
        )
    np.testing.assert_array_equal(color, read(expected[0]))
    np.testing.assert_array_equal(raw, read(expected[1]))
    assert scale == 0.0001


def test_compressed_images_in_a_buffer_are_read_through_the_host():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 10, 3), np.uint8)
    depth = np.full((6, 10), 700, np.uint16)
    coded = [cv2.imencode(".png", image)[1].tobytes() for image in (pixels, depth)]
    sent = [SimpleNamespace(format="rgb8; png compressed bgr8", data=Buffer(coded[0], "cuda"))]
    sent.append(SimpleNamespace(format="16UC1; compressedDepth png", data=Buffer(bytes(12) + coded[1], "cuda")))
    with ExitStack() as leases:
        settings = InputConfig(image_transport="compressed")
        color, raw, _ = bridge.pair_to_images(*sent, settings, "cuda:0", leases, Logger())
    np.testing.assert_array_equal(color, pixels[..., ::-1])
    np.testing.assert_array_equal(raw, depth)


@pytest.fixture
def host_as_gpu(monkeypatch):
    """The CPU's memory in the place of a GPU's; its default stream has the handle 0, as torch's."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(Buffer, "gpu", "cpu")

    def memory_at(pointer: int, size: int, _device: str) -> torch.Tensor:
        return torch.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype=torch.uint8)

    monkeypatch.setattr(buffers, "memory_at", memory_at)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_lease_is_held_in_the_order_of_torchs_stream_and_the_bytes_are_the_messages_own(
    cuda_buffer, host_as_gpu, encoding
):
    made = message(encoding, "cuda")
    with ExitStack() as leases:
        found = buffers.on_device(made, "cuda:0", leases)
        assert made.data.leases == 1
        assert cuda_buffer.streams == [device_frame.DEFAULT_STREAM]
        np.testing.assert_array_equal(found.numpy(), read(message(encoding, None)))
        made.data.memory.zero_()
        assert (found.numpy() == 0).all() or encoding.startswith(("bgr", "8UC"))
    assert made.data.leases == 0


def test_a_buffer_of_another_gpu_goes_through_the_host(cuda_buffer, host_as_gpu):
    cuda_buffer.device_id = 1
    made = message("rgb8", "cuda")
    with ExitStack() as leases:
        assert buffers.on_device(made, "cuda:0", leases) is None
        assert buffers.on_device(made, "cuda:1", leases) is not None
    assert made.data.leases == 0


@pytest.mark.gpu
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_cuda_memory_becomes_a_tensor_without_a_copy_until_its_lease_ends(cuda_buffer, encoding):
    made = message(encoding, "cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), ExitStack() as leases:
        found = buffers.on_device(made, "cuda:0", leases)
        assert made.data.leases == 1
        assert cuda_buffer.streams == [stream.cuda_stream]
        assert found.device.type == "cuda"
        if not encoding.startswith(("bgr", "8UC")):
            assert found.data_ptr() == made.data.memory.data_ptr()
        np.testing.assert_array_equal(found.cpu().numpy(), read(message(encoding, None)))
    assert made.data.leases == 0


def scene_messages(backend: str | None) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The example's two images; backend: where their bytes are, None for array.array."""
    color = cv2.cvtColor(cv2.imread(str(ROOT / "examples/color.jpg")), cv2.COLOR_BGR2RGB)
    made = []
    for pixels, encoding in ((color, "rgb8"), (cv2.imread(str(ROOT / "examples/depth.png"), -1), "16UC1")):
        height, width = pixels.shape[:2]
        data = array.array("B", pixels.tobytes()) if backend is None else Buffer(pixels.tobytes(), backend)
        about = {"height": height, "width": width, "step": pixels.strides[0], "encoding": encoding, "is_bigendian": 0}
        made.append(SimpleNamespace(data=data, **about))
    return made[0], made[1]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("memories", [("cuda", "cuda"), ("cuda", None), ("cpu", "cuda")])
def test_a_frame_in_cuda_buffers_gives_the_poses_of_arrays_to_the_last_bit(cuda_buffer, memories, tmp_path):
    """What is on the GPU is neither copied to the host nor back, and its owner may write into it when the lease has ended."""
    camera = CameraIntrinsics(608.0, 608.0, 319.5, 239.5, 640, 480)
    settings, messages = InputConfig(), [scene_messages(memory)[i] for i, memory in enumerate(memories)]
    taken_back = [m.data for m, memory in zip(messages, memories, strict=True) if memory == "cuda"]
    with Pipeline.build(
        Config.from_dict({"device": "cuda", "detector.period_frames": 1}), background=False
    ) as pipeline:
        pipeline.warm_up(camera)

        def poses(rgb, depth, spoil: bool = False) -> list[tuple[str, bytes]]:
            found = []
            for step in range(4):
                kept = [data.memory.clone() for data in taken_back]
                with ExitStack() as leases:
                    images_of = bridge.pair_to_images(rgb, depth, settings, "cuda:0", leases, Logger())
                    frame = Frame(0, "camera", *images_of, camera)
                    result = pipeline.process(frame) if step else pipeline.locate(frame)
                if spoil:
                    for data, memory in zip(taken_back, kept, strict=True):
                        data.memory.zero_()
                        data.memory.copy_(memory)
                found += [(p.name, p.T_cam_obj.tobytes()) for p in result.poses]
            return found

        expected = poses(*scene_messages(None))
        assert len(expected) >= 4
        assert poses(*messages) == expected
        assert poses(*messages, spoil=True) == expected
        assert all(data.leases == 0 for data in taken_back) and len(cuda_buffer.streams) == 8 * len(taken_back)
        if memories == ("cuda", "cuda"):
            copies = largest_copies(lambda: poses(*messages), tmp_path / "trace.json")
            assert max(copies.values()) < 640 * 480, copies


class Kilted:
    def create_subscription(self, msg_type, topic, callback, qos_profile): ...


class Lyrical:
    def create_subscription(self, msg_type, topic, callback, qos_profile, *, acceptable_buffer_backends="cpu"): ...


@pytest.mark.parametrize(
    ("node", "wanted", "device", "expected"),
    [
        (Kilted, "auto", "cuda:0", {}),
        (Lyrical, "auto", "cuda:0", {"acceptable_buffer_backends": "cuda"}),
        (Lyrical, "auto", "cpu", {}),
        (Lyrical, "cpu", "cuda:0", {}),
        (Lyrical, "cuda", "cuda:0", {"acceptable_buffer_backends": "cuda"}),
        (Lyrical, "cuda", "cpu", "the pipeline runs on the CPU"),
        (Kilted, "cuda", "cuda:0", "ROS 2 Lyrical has"),
    ],
)
def test_a_subscription_asks_for_the_gpu_where_rclpy_and_the_pipeline_can(cuda_buffer, node, wanted, device, expected):
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            buffers.subscription_options(node(), wanted, device)
    else:
        assert buffers.subscription_options(node(), wanted, device) == expected


def test_without_its_package_nobody_asks_for_cuda_buffers(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda_buffer", None)
    monkeypatch.setattr(buffers.importlib.util, "find_spec", lambda _name: None)
    assert buffers.subscription_options(Lyrical(), "auto", "cuda:0") == {}
    with pytest.raises(ConfigError, match="cuda_buffer_py is not installed"):
        buffers.subscription_options(Lyrical(), "cuda", "cuda:0")


class Logger:
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, sentence: str) -> None:
        self.said.append(sentence)


def test_encodings_of_others_go_through_cv_bridge_where_it_is_installed(monkeypatch):
    made = message("rgb8", None, padding=0)
    made.encoding = "32FC3"
    logger = Logger()
    monkeypatch.setattr(compat, "cv_bridge", None)
    with pytest.raises(InputError, match="32FC3"):
        bridge.image_to_depth(made, 0.001, logger)

    class CvBridge:
        def imgmsg_to_cv2(self, message, desired_encoding):
            if message.step == 1:
                raise ValueError("step")
            return np.full((6, 10, 3), 5, np.uint8) if desired_encoding == "rgb8" else np.full((6, 10), 0.5)

    monkeypatch.setattr(compat, "cv_bridge", SimpleNamespace(CvBridge=CvBridge))
    monkeypatch.setattr(bridge, "_said", set())
    for _ in range(3):
        depth, scale = bridge.image_to_depth(made, 0.001, logger)
        assert (depth.dtype, scale, float(depth[0, 0])) == (np.float32, 1.0, 0.5)
    assert logger.said == ["images of encoding 32FC3 are converted by cv_bridge"]
    made.encoding = "odd"
    assert bridge.image_to_rgb(made, logger).shape == (6, 10, 3)
    made.step = 1
    with pytest.raises(InputError, match="cv_bridge cannot either: step"):
        bridge.image_to_rgb(made, logger)
    made.encoding = "rgb8"  # damaged: ours says so, cv_bridge is not asked
    with pytest.raises(InputError, match="step 1"):
        bridge.image_to_rgb(made, logger)


def test_the_real_cv_bridge_converts_what_ours_does_not(monkeypatch):
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed")
    monkeypatch.setattr(compat, "cv_bridge", cv_bridge)
    from sensor_msgs.msg import Image

    made = Image(height=4, width=6, encoding="8UC1", step=6)
    made.data = array.array("B", np.full((4, 6), 50, np.uint8).tobytes())
    depth, scale = bridge.image_to_depth(made, 0.001, Logger())
    assert (depth.shape, depth.dtype, scale, float(depth[0, 0])) == ((4, 6), np.float32, 0.001, 50.0)
