"""Intrinsics from the files of calibration tools and data sets; the contents are as those write them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from rfdetr_foundationpose import CameraIntrinsics
from rfdetr_foundationpose.camera_files import read_camera
from rfdetr_foundationpose.errors import InputError
from support.camera_texts import CX, CY, FILES, FX, FY, PLAIN, REALSENSE, ROWS


@pytest.mark.parametrize("name", FILES)
def test_camera_files_of_tools_are_read(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    found = read_camera(tmp_path / name)
    np.testing.assert_allclose((found.fx, found.fy, found.cx, found.cy), (FX, FY, CX, CY))
    assert found.size in (None, (640, 480))
    camera = CameraIntrinsics.from_file(tmp_path / name, 640, 480)
    np.testing.assert_allclose(camera.K.ravel(), ROWS)
    assert (camera.width, camera.height) == (640, 480)


@pytest.mark.parametrize("suffix", ["yml", "xml", "json", "npy"])
def test_camera_files_of_opencv_and_numpy_are_read(tmp_path, suffix):
    file = tmp_path / f"calibration.{suffix}"
    if suffix == "npy":
        np.save(file, np.array(ROWS).reshape(3, 3))
    else:
        storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
        storage.write("calibration_time", "today")
        storage.write("image_width", 640)
        storage.write("image_height", 480)
        storage.write("camera_matrix", np.array(ROWS).reshape(3, 3))
        storage.write("distortion_coefficients", np.array([[0.1, -0.2, 0.0, 0.0, 0.05]]))
        storage.release()
        assert read_camera(file).distortion == (0.1, -0.2, 0.0, 0.0, 0.05)
    np.testing.assert_allclose(CameraIntrinsics.from_file(file, 640, 480).K.ravel(), ROWS)


def test_opencv_yaml_of_before_opencv_5(tmp_path):
    text = f"%YAML:1.0\n---\nK: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: {ROWS}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_camera(tmp_path / "a.yaml").cx == CX


@pytest.mark.parametrize(
    "name, unit",
    [
        ("camera.json", 1e-4),
        ("scene_camera.json", 1e-4),
        ("info.yml", 1e-3),
        ("orb.yaml", 2e-4),
        ("cam_params.json", 1 / 6553.5),
        ("nice_slam.yaml", 1 / 6553.5),
        ("realsense_unit.json", 2.5e-4),
        ("info.txt", 1e-3),
        ("transforms.json", None),
        ("ost.yaml", None),
        ("cam_K.txt", None),
    ],
)
def test_units_of_depth_that_files_name(tmp_path, name, unit):
    (tmp_path / name).write_text(FILES[name])
    assert read_camera(tmp_path / name).depth_unit == (None if unit is None else pytest.approx(unit))


@pytest.mark.parametrize(
    "name, model", [("ost.yaml", "plumb_bob"), ("camchain.yaml", "radtan"), ("orb.yaml", "plumb_bob")]
)
def test_lenses_that_distort_are_known(tmp_path, name, model):
    (tmp_path / name).write_text(FILES[name])
    found = read_camera(tmp_path / name)
    assert found.model == model and found.distortion[0] == 0.1


VINS = """%YAML:1.0
---
model_type: {}
image_width: 640
image_height: 480
distortion_parameters:
   k1: 0.1
   k2: -0.2
   p1: 0.003
   p2: 0.004
projection_parameters:
   fx: 600.5
   fy: 601.5
   cx: 319.25
   cy: 241.75
"""
ZIVID = "CameraIntrinsics:\n  CameraMatrix: {CX: 319.25, CY: 241.75, FX: 600.5, FY: 601.5}\n  Distortion: {K1: 0.1, K2: -0.2, K3: 0.005, P1: 0.003, P2: 0.004}\n"
KB8 = """%YAML:1.0
Camera.type: "KannalaBrandt8"
Camera1.fx: 600.5
Camera1.fy: 601.5
Camera1.cx: 319.25
Camera1.cy: 241.75
Camera1.k1: 0.1
Camera1.k2: 0.2
Camera1.k3: 0.3
Camera1.k4: 0.4
"""


def basalt(kind, **more):
    of = {"camera_type": kind, "intrinsics": {**PLAIN, **more}}
    return json.dumps({"value0": {"intrinsics": [of], "resolution": [[640, 480]]}})


def nerf(kind, **more):
    return json.dumps({"camera_model": kind, "fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY, **more, "frames": []})


def colmap(kind, *more, one=False):
    focal = [600.5] if one else [600.5, 601.5]
    return f"1 {kind} 640 480 {' '.join(map(str, [*focal, 319.75, 242.25, *more]))}\n"


FOUR = {"k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4}
BOB, FISHEYE = (0.1, -0.2, 0.003, 0.004), (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    ("text", "model", "distortion"),
    [
        (VINS.format("PINHOLE"), "plumb_bob", (*BOB, 0.0)),
        (ZIVID, "plumb_bob", (*BOB, 0.005)),
        (KB8, "equidistant", FISHEYE),
        (basalt("kb4", **FOUR), "equidistant", FISHEYE),
        (basalt("pinhole"), "", ()),
        (nerf("OPENCV_FISHEYE", **FOUR), "equidistant", FISHEYE),
        (nerf("OPENCV", k1=0.1, k2=-0.2, p1=0.003, p2=0.004), "plumb_bob", (*BOB, 0.0)),
        (colmap("OPENCV", *BOB), "plumb_bob", BOB),
        (colmap("OPENCV_FISHEYE", *FISHEYE), "equidistant", FISHEYE),
        (colmap("SIMPLE_RADIAL", 0.1, one=True), "plumb_bob", (0.1, 0, 0, 0)),
        (colmap("RADIAL", 0.1, -0.2, one=True), "plumb_bob", (0.1, -0.2, 0, 0)),
        (colmap("FULL_OPENCV", *range(1, 9)), "rational_polynomial", tuple(range(1, 9))),
        (colmap("FOV", 0.0), "", ()),
        (json.dumps({**REALSENSE, "model": "Inverse Brown Conrady", "coeffs": [0.1, 0, 0, 0, 0]}), "inverse brown conrady", (0.1, 0, 0, 0, 0)),
    ],
    ids=["VINS", "Zivid", "ORB-SLAM3", "Basalt", "Basalt pinhole", "NeRF fisheye", "NeRF", "COLMAP", "COLMAP fisheye", "one", "two", "full", "FOV of none", "RealSense"],
)  # fmt: skip
def test_lenses_are_those_that_files_name(tmp_path, text, model, distortion):
    """Also where their coefficients stand beside the matrix, in a mapping of their own."""
    (tmp_path / "camera.txt").write_text(text)
    found = read_camera(tmp_path / "camera.txt")
    assert (found.cx, found.cy) == (CX, CY) and found.fx == FX
    assert found.model == model and found.distortion == distortion


@pytest.mark.parametrize("text", [basalt("ds", xi=-0.2, alpha=0.6), VINS.format("MEI"), colmap("FOV", 0.9)])
def test_lenses_that_are_not_known_are_refused(tmp_path, text):
    (tmp_path / "camera.txt").write_text(text)
    with pytest.raises(InputError, match="its lens model '(ds|mei|FOV)' is not read; undistort the images"):
        read_camera(tmp_path / "camera.txt")


def test_isaac_sims_projection_is_that_of_opengl(tmp_path):
    projection = np.array([[1.5, 0, 0, 0], [0, 2.0, 0, 0], [0.25, -0.125, 0, -1], [0, 0, 0.1, 0]])  # of rows
    size = {"renderProductResolution": [640, 480]}
    (tmp_path / "a.json").write_text(json.dumps({"cameraProjection": projection.ravel().tolist(), **size}))
    K = CameraIntrinsics.from_file(tmp_path / "a.json", 640, 480).K
    point = np.array([0.3, -0.2, -2.0, 1.0])  # x right, y up, seen along -z
    clip = point @ projection
    x, y = clip[:2] / clip[3]
    pixel = K @ (point[:3] * [1, -1, -1])
    np.testing.assert_allclose(pixel[:2] / pixel[2], [(x + 1) * 320 - 0.5, (1 - y) * 240 - 0.5])


def test_two_cameras_of_one_image_are_refused(tmp_path):
    frames = [
        {"file_path": f"{side}/0001.png", "fl_x": fx, "fl_y": 61, "cx": 31, "cy": 23}
        for side, fx in (("left", 60), ("right", 70))
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(InputError, match="two different cameras of the image number 0001"):
        read_camera(tmp_path / "transforms.json")


def test_a_file_of_the_same_view_is_scaled_and_of_another_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(REALSENSE))
    half = CameraIntrinsics.from_file(tmp_path / "a.json", 320, 240)
    # The middle of the image stays the middle.
    assert (half.fx, half.cx, half.cy) == (FX / 2, (CX + 0.5) / 2 - 0.5, (CY + 0.5) / 2 - 0.5)
    with pytest.raises(InputError, match="a.json is of 640x480 pixels, the images have 640x360"):
        CameraIntrinsics.from_file(tmp_path / "a.json", 640, 360)


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "cannot be read: No such file"),
        ("", "holds no intrinsics; expected a 3x3 camera matrix as text"),
        ("1 2 3\n4 5 6\n7 8 9\n", "is no camera matrix"),
        ("1 2 3 4 5", "5 numbers"),
        ("0 0 0\n0 0 0\n0 0 0\n", "is no camera matrix"),
        ("1.93 0 3\n0 1.93 2\n0 0 1\n", "no focal length in pixels"),
        ("nan nan 3 4", "holds no intrinsics"),
        ("-600 600 3 4", "fx=-600.*must be positive"),
        ("{", "cannot be read"),
        (json.dumps({"left": REALSENSE, "right": {**REALSENSE, "fx": 610.0}}), "2 different cameras .left, right."),
        ("[a: b", "cannot be read"),
        ("hello", "holds no intrinsics"),
        ("# oST version 5.0 parameters\n\n[image]\n", "take ost.yaml, which is beside it"),
        ('Intrinsic of "Color" / 1280x720 / {RGB8}\n  Fx: \t912.4\n', "it is neither numbers nor YAML"),
        ('<?xml version="1.0"?>\n<calibration><f>3000</f></calibration>', "it is XML of another program"),
    ],
)
def test_what_holds_no_intrinsics_says_why(tmp_path, text, words):
    if text is not None:
        (tmp_path / "camera.txt").write_text(text)
    with pytest.raises(InputError, match=words) as found:
        read_camera(tmp_path / "camera.txt")
    assert "camera.txt" in str(found.value)


def test_the_size_must_come_from_somewhere(tmp_path):
    (tmp_path / "cam_K.txt").write_text(FILES["cam_K.txt"])
    with pytest.raises(InputError, match="give width and height"):
        CameraIntrinsics.from_file(tmp_path / "cam_K.txt")
