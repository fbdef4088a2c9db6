"""The package as a Python library: what importing it brings, frames of arrays, tensors and files, and the README's example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import rfdetr_foundationpose
from rfdetr_foundationpose import CameraIntrinsics, Config, ConfigError, Frame, FrameResult, InputError, ObjectPose
from rfdetr_foundationpose.device_frame import Uploader, image_memory
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.replay.metrics import ObjectGeometry, pose_error
from rfdetr_foundationpose.resources import default_objects_file
from rfdetr_foundationpose.types import TrackState
from support import pipeline_world
from support.copies import largest_copies
from support.pipeline_world import make, spec, step, use_estimator, wait_registered

ROOT = Path(__file__).resolve().parents[1]
CAMERA = CameraIntrinsics(100.0, 100.0, 32.0, 24.0, 64, 48)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code as a user would, in the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_importing_the_package_brings_no_torch_and_names_come_when_they_are_used():
    code = """
import sys
import rfdetr_foundationpose as package
from rfdetr_foundationpose import CameraIntrinsics, Config, Detection, Frame, ObjectPose
assert not {"torch", "warp", "rfdetr", "cv2", "rclpy"} & sys.modules.keys(), sorted(sys.modules)
assert set(package.__all__) <= set(dir(package))
package.Pipeline
assert "torch" in sys.modules and "rclpy" not in sys.modules
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="Pipelin'"):
        _ = rfdetr_foundationpose.Pipelin


def test_every_public_name_is_there():
    for name in rfdetr_foundationpose.__all__:
        assert getattr(rfdetr_foundationpose, name).__name__ == name


# Where the generator put the two objects of examples/color.jpg, rounded.
TRUTH = {
    "mug": [[0.6542, 0.7219, -0.2254, -0.0362], [0.3162, -0.5318, -0.7856, -0.0524], [-0.687, 0.4427, -0.5762, 0.7409]],
    "drill": [
        [-0.1176, -0.3517, -0.9287, 0.0105],
        [-0.8044, -0.5146, 0.2968, 0.0303],
        [-0.5823, 0.7819, -0.2224, 0.5824],
    ],
}


@pytest.mark.slow
def test_the_example_of_the_readme_prints_the_poses_of_both_objects():
    section = (ROOT / "README.md").read_text().split("## From Python\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr  # of other packages, at which a user can do nothing
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    rows = re.findall(rf"^(\w+) \[([^]]*)\] \[([^]]*)\] ({number})$", done.stdout, re.MULTILINE)
    assert {name for name, *_ in rows} == TRUTH.keys(), done.stdout
    geometry = {s.name: ObjectGeometry.from_spec(s) for s in load_objects(default_objects_file())}
    for name, translation, quaternion, confidence in rows:
        x, y, z, w = np.fromstring(quaternion, sep=" ")
        T = np.eye(4)
        T[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        T[:3, 3] = np.fromstring(translation, sep=" ")
        truth = np.vstack([TRUTH[name], (0, 0, 0, 1)])
        error = pose_error(T, truth, geometry[name])
        assert error.translation_mm < 10 and error.rotation_deg < 5, (name, error)
        assert float(confidence) > 0.5


def test_warp_prints_nothing_when_it_is_first_used():
    script = "from rfdetr_foundationpose.warp_setup import wp; wp.zeros(3, dtype=float, device='cpu')"
    done = python(script)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def images(dtype=np.uint16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    depth = rng.uniform(500, 1500, (48, 64))
    return rgb, (depth if dtype == np.uint16 else depth / 1000).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tensors_and_arrays_are_the_same_frame(dtype):
    rgb, depth = images(dtype)
    given = Frame.from_arrays(torch.from_numpy(rgb), torch.from_numpy(depth), CAMERA)
    assert given.depth_scale == (0.001 if dtype == np.uint16 else 1.0)
    upload = Uploader("cpu")
    expected, found = upload(Frame.from_arrays(rgb, depth, CAMERA)), upload(given)
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.depth, expected.depth)
    # What is on the device already is taken as it is, what is not is copied, so that the caller may use it again.
    assert found.borrowed and found.rgb.data_ptr() == given.rgb.data_ptr()
    assert not expected.borrowed and expected.rgb.data_ptr() != torch.from_numpy(rgb).data_ptr()
    np.testing.assert_array_equal(given.to_numpy().rgb, rgb)
    np.testing.assert_array_equal(given.to_numpy().depth, depth)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", ["backwards", "read-only", "columns first", "every second pixel"])
def test_arrays_of_any_layout_arrive_as_they_look(layout):
    rgb, depth = images()
    shown = {
        "backwards": (rgb[..., ::-1], depth[::-1]),
        "read-only": (np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape), depth),
        "columns first": (np.asfortranarray(rgb), np.asfortranarray(depth)),
        "every second pixel": (np.repeat(rgb, 2, axis=1)[:, ::2], depth),
    }[layout]
    found = Uploader("cpu")(Frame.from_arrays(*shown, CAMERA))
    assert found.rgb.is_contiguous() and found.raw_depth.is_contiguous()
    np.testing.assert_array_equal(found.rgb.numpy(), shown[0])
    np.testing.assert_array_equal(found.raw_depth.numpy(), shown[1])


@pytest.mark.parametrize(
    "rgb, depth, message",
    [
        (
            torch.zeros(3, 48, 64, dtype=torch.uint8),
            torch.zeros(48, 64),
            r"uint8 \(3, 48, 64\), expected uint8 \(H, W, 3\)",
        ),
        (torch.zeros(48, 64, 3), torch.zeros(48, 64), r"float32 \(48, 64, 3\), expected uint8"),
        (torch.zeros(48, 64, 3, dtype=torch.uint8), torch.zeros(48, 64, dtype=torch.float64), "depth is float64"),
        (np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), ">u2"), "depth is >u2"),
        (np.zeros((48, 64, 3), np.uint8), [[0.0]], "depth is list"),
        (np.zeros((48, 64, 3), np.uint8), np.zeros((24, 32), np.uint16), "32x24 but rgb is 64x48"),
    ],
)
def test_what_is_no_frame_is_said(rgb, depth, message):
    with pytest.raises(InputError, match=message):
        Frame.from_arrays(rgb, depth, CAMERA)


def test_frames_from_files(tmp_path):
    rgb, depth = images()
    cv2.imwrite(str(tmp_path / "color.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "depth.png"), depth)
    np.save(tmp_path / "depth.npy", depth / 1000)
    cv2.imwrite(str(tmp_path / "depth.tiff"), (depth / 1000).astype(np.float32))
    for name, scale in (("depth.png", 0.001), ("depth.npy", 1.0), ("depth.tiff", 1.0)):
        frame = Frame.from_files(tmp_path / "color.png", tmp_path / name, CAMERA, stamp_ns=7)
        np.testing.assert_array_equal(frame.rgb, rgb)
        np.testing.assert_allclose(frame.depth * frame.depth_scale, depth / 1000, rtol=1e-6)
        assert frame.depth_scale == scale and frame.stamp_ns == 7


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("nowhere.png", None, "nowhere.png cannot be read: No such file"),
        ("text.png", b"this is no picture", "text.png cannot be decoded"),
        ("empty.png", b"", "empty.png cannot be decoded"),
        ("gray.png", cv2.imencode(".png", np.zeros((48, 64), np.uint8))[1].tobytes(), "gray.png holds uint8 .48, 64."),
        ("text.npy", b"this is no array", "text.npy is no .npy array"),
    ],
)
def test_files_that_are_no_depth_are_named(tmp_path, name, content, message):
    rgb, _ = images()
    cv2.imwrite(str(tmp_path / "color.png"), rgb)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Frame.from_files(tmp_path / "color.png", tmp_path / name, CAMERA)


def pose(name: str = "mug", instance: int = 0, state: TrackState = TrackState.TRACKING) -> ObjectPose:
    T = np.eye(4)
    T[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    T[:3, 3] = 0.1, 0.2, 0.7
    return ObjectPose(name, instance, T, 0.9, 0.8, state, 7, "camera")


def test_poses_have_names_and_units():
    p = pose()
    np.testing.assert_allclose(p.translation_m, (0.1, 0.2, 0.7))
    np.testing.assert_allclose(p.quaternion_xyzw, (0, 0, np.sqrt(0.5), np.sqrt(0.5)))
    np.testing.assert_allclose(p.rotation @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    assert str(p) == (
        "mug tracking: x 0.1000 y 0.2000 z 0.7000 m, quaternion xyzw 0.0000 0.0000 0.7071 0.7071, confidence 0.90"
    )


def test_results_are_asked_by_name():
    rgb, depth = images()
    lost = pose("can", state=TrackState.LOST)
    result = FrameResult(Frame.from_arrays(rgb, depth, CAMERA), [pose(), pose("mug", 1), lost], None, [])
    assert result.pose("mug_1").instance_id == 1 and result.pose("can") is None and result.pose("box") is None
    assert [p.name for p in result.poses_of("mug")] == ["mug", "mug_1"] == [p.name for p in result.tracking]


def test_settings_from_python_are_checked():
    assert Config.from_dict({"detector.threshold": 0.4}).detector.threshold == 0.4
    config = Config()
    config.pose.lost_frames = 0
    with pytest.raises(ConfigError, match="pose.lost_frames=0"):
        rfdetr_foundationpose.Pipeline.build(config)


def test_a_still_image_gets_all_its_poses_at_once(world):
    world.things = [("mug", (-0.2, 0.0, 1.0)), ("mug", (0.2, 0.0, 1.0)), ("can", (0.0, 0.2, 1.0))]
    rgb, depth = np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32)
    still = Frame.from_arrays(rgb, depth, pipeline_world.CAMERA)
    with make(world, [spec("mug", max_instances=2), spec("can")]) as pipeline:
        assert {p.name for p in pipeline.locate(still).poses} == {"mug", "mug_1", "can"}
        world.things = world.things[2:]
        assert {p.name for p in pipeline.locate(still).poses} == {"can"}
        assert {p.name for p in step(pipeline).poses} == {"can"}
    assert all(not in_background for _, in_background in world.registers)


def test_a_still_image_tries_every_detection_of_an_object_even_after_a_refusal(world):
    world.things = [("mug", (-0.2, 0.0, 1.0)), ("mug", (0.2, 0.0, 1.0))]
    world.register_confidence = 0.1
    still = Frame.from_arrays(np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32), pipeline_world.CAMERA)
    with make(world, [spec("mug")]) as pipeline:
        result = pipeline.locate(still)
    assert result.poses == [] and len(world.registers) == 2
    assert result.events == ["mug refused: confidence 0.10 is below pose.accept_confidence=0.5"] * 2


@dataclass(frozen=True)
class Prepared:
    things: list
    rgb: torch.Tensor

    def detached(self) -> Prepared:
        return replace(self, rgb=self.rgb.clone())


class LooksAtPixels(pipeline_world.ScriptedEstimator):
    """pixels: what a registration saw when it was let go."""

    pixels: torch.Tensor | None = None

    def prepare(self, frame):
        return Prepared(list(self.world.things), frame.rgb)

    def register(self, frame, object, mask, *, outlined=True):
        estimate = super().register(frame, object, mask, outlined=outlined)
        self.pixels = frame.rgb.clone()
        return estimate


def test_a_tensor_may_be_changed_once_its_frame_is_done(world):
    """A registration that goes on in the background has what it needs."""
    world.things = [("mug", (-0.2, 0.0, 1.0))]
    rgb, depth = torch.zeros(120, 160, 3, dtype=torch.uint8), torch.ones(120, 160)
    with make(world, [spec("mug"), spec("can")]) as pipeline:
        estimator = use_estimator(pipeline, LooksAtPixels(world))
        pipeline.process(Frame.from_arrays(rgb, depth, pipeline_world.CAMERA))
        world.things.append(("can", (0.2, 0.0, 1.0)))
        world.hold = threading.Event()
        rgb.fill_(7)
        pipeline.process(Frame.from_arrays(rgb, depth, pipeline_world.CAMERA))
        rgb.fill_(99)
        world.hold.set()
        wait_registered(pipeline)
        assert world.registers == [("mug", False), ("can", True)]
        assert (estimator.pixels == 7).all()


IMAGE_BYTES = 480 * 640
"""A copy between host and device of this many bytes or more is that of an image."""


def page_locked(frame: Frame) -> Frame:
    """The same with its images in memory that a GPU reads directly, as the node has them."""

    def moved(image):
        memory = image_memory(image.nbytes, "cuda").view(image.dtype).reshape(image.shape)
        memory[:] = image
        return memory

    return replace(frame, rgb=moved(frame.rgb), depth=moved(frame.depth))


def test_memory_of_images_is_ordinary_for_a_cpu_and_where_none_can_be_locked(monkeypatch):
    for device in ("cpu", "cuda:0"):
        if device != "cpu":  # as cudaHostAlloc fails

            def refuse(*_, **__):
                raise RuntimeError("CUDA error: out of memory")

            monkeypatch.setattr(torch, "empty", refuse)
        memory = image_memory(12, device)
        assert memory.shape == (12,) and memory.dtype == np.uint8 and memory.flags.writeable


def test_an_early_image_is_not_uploaded_again_by_the_frame_over_its_memory():
    upload = Uploader("cpu")
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    frame = Frame(0, "camera", np.zeros((48, 64, 3), np.uint8), depth, 0.001, CAMERA)
    brought = upload.upload_early("depth", depth[:])
    assert upload(frame).raw_depth is brought
    assert upload(frame).raw_depth is not brought  # the memory may hold another image by now
    for other in (depth.copy(), depth[::-1]):
        upload.upload_early("depth", depth)
        assert torch.equal(upload(replace(frame, depth=other)).raw_depth, torch.from_numpy(other.copy()))
    upload.upload_early("depth", depth)
    newest = upload.upload_early("rgb", frame.rgb)  # takes its place
    found = upload(frame)
    assert found.rgb is newest and torch.equal(found.raw_depth, torch.from_numpy(depth))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("first", ["depth", "rgb"])
def test_a_frame_of_an_early_image_has_the_same_poses_and_uploads_it_once(first, tmp_path):
    camera = CameraIntrinsics(608.0, 608.0, 319.5, 239.5, 640, 480)
    stored = Frame.from_files(ROOT / "examples/color.jpg", ROOT / "examples/depth.png", camera, stamp_ns=0)
    config = Config.from_dict({"device": "cuda", "detector.period_frames": 1})
    with rfdetr_foundationpose.Pipeline.build(config, background=False) as pipeline:
        pipeline.warm_up(camera)

        def upload_early(frame: Frame) -> None:
            scale = {"depth_scale": frame.depth_scale} if first == "depth" else {}
            pipeline.upload_early(**{first: getattr(frame, first)}, **scale)

        def poses(*, early: bool, memory=page_locked) -> list[tuple[str, bytes]]:
            found = []
            for step in range(6):
                frame = memory(stored)
                if early and step % 3 == 2:  # whose partner was lost on its way: other numbers in other memory
                    lost = memory(replace(stored, depth=stored.depth + np.uint16(50), rgb=stored.rgb[::-1].copy()))
                    upload_early(lost)
                if early and step not in (4, 5):
                    upload_early(frame)
                result = pipeline.process(frame) if step else pipeline.locate(frame)
                found += [(p.name, p.T_cam_obj.tobytes()) for p in result.poses]
            return found

        expected = poses(early=False)
        assert len(expected) >= 6
        for memory in (page_locked, lambda frame: replace(frame, depth=frame.depth.copy(), rgb=frame.rgb.copy())):
            assert poses(early=True, memory=memory) == expected
        frame = page_locked(stored)
        upload_early(frame)
        filters = pipeline._estimator._filter.graph.counters.replays
        torch.cuda.synchronize()
        copies = largest_copies(lambda: pipeline.process(frame), tmp_path / "process.json")
        assert copies["HtoD"] == getattr(frame, "rgb" if first == "depth" else "depth").nbytes
        assert pipeline._estimator._filter.graph.counters.replays - filters == (0 if first == "depth" else 1)


@pytest.mark.gpu
@pytest.mark.slow
def test_a_frame_on_the_gpu_gives_the_same_poses_and_never_goes_through_the_host(tmp_path):
    camera = CameraIntrinsics(608.0, 608.0, 319.5, 239.5, 640, 480)
    on_host = Frame.from_files(ROOT / "examples/color.jpg", ROOT / "examples/depth.png", camera, stamp_ns=0)
    on_device = replace(on_host, rgb=torch.from_numpy(on_host.rgb).cuda(), depth=torch.from_numpy(on_host.depth).cuda())
    config = Config.from_dict({"device": "cuda", "detector.period_frames": 1})
    with rfdetr_foundationpose.Pipeline.build(config, background=False) as pipeline:
        pipeline.warm_up(camera)

        def poses(frame: Frame) -> list[list[ObjectPose]]:
            return [pipeline.locate(frame).poses, *(pipeline.process(frame).poses for _ in range(3))]

        expected, found = poses(on_host), poses(on_device)
        assert {p.name for p in expected[0]} == TRUTH.keys()
        for a, b in zip(expected, found, strict=True):
            assert [p.name for p in a] == [p.name for p in b]
            for p, q in zip(a, b, strict=True):
                np.testing.assert_array_equal(p.T_cam_obj, q.T_cam_obj)
        for a, b in zip(expected, poses(page_locked(on_host)), strict=True):
            assert [p.T_cam_obj.tolist() for p in a] == [p.T_cam_obj.tolist() for p in b]
        assert largest_copies(lambda: poses(on_host), tmp_path / "host.json")["HtoD"] >= IMAGE_BYTES
        copies = largest_copies(lambda: poses(on_device), tmp_path / "device.json")
    assert copies["HtoD"] < IMAGE_BYTES and copies["DtoH"] < IMAGE_BYTES, copies


@pytest.mark.parametrize(
    "camera, words",
    [
        (
            CameraIntrinsics(920.0, 920.0, 640.0, 360.0, 640, 360),
            r"middle of images of 640x360, as if it were of 1281x721;",
        ),
        (CameraIntrinsics(460.0, 460.0, 320.0, 240.0, 1280, 960), "as if it were of 641x481"),
        (CameraIntrinsics(920.0, 920.0, 640.0, 360.0, 640, 480), "far from the middle of images of 640x480; unless"),
        (CameraIntrinsics(615.0, 615.0, 331.0, 228.0, 640, 480), ""),
        (CameraIntrinsics(600.0, 600.0, 319.5, 239.5, 640, 480), ""),
    ],
)
def test_a_camera_matrix_of_another_size_is_said_once(caplog, camera, words):
    assert re.search(words, camera.doubt) if words else camera.doubt == ""
    pipeline = make(pipeline_world.World(), [spec("mug")])
    shape = (camera.height, camera.width)
    for stamp, one in enumerate((camera, camera, replace(camera, fx=camera.fx + 1))):
        pipeline.process(Frame(stamp, "camera", np.zeros((*shape, 3), np.uint8), np.ones(shape, np.float32), 1.0, one))
    pipeline.close()
    said = [r.getMessage() for r in caplog.records if "principal point" in r.getMessage()]
    assert len(said) == bool(words)
