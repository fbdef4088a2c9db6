"""Lenses: what CameraInfo says of them, and images made pinhole images, against OpenCV's own projection of points."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rfdetr_foundationpose.camera.calibration import is_rectified, read_calibration
from rfdetr_foundationpose.camera.rectify import Rectifier
from rfdetr_foundationpose.types import Frame, InputError

WIDTH, HEIGHT = 160, 120
K = np.array([[120.0, 0, 80.5], [0, 121.0, 59.0], [0, 0, 1]])
LENSES = {
    "plumb_bob": [-0.25, 0.08, 0.002, -0.001, 0.01],
    "rational_polynomial": [0.3, -0.1, 0.001, -0.002, 0.05, 0.55, -0.2, 0.03],
    "equidistant": [0.05, -0.02, 0.01, -0.003],
}


def info(model: str = "plumb_bob", d: list[float] | None = None, **changes: object) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    P = np.hstack([K * [[0.9], [0.9], [1]], np.zeros((3, 1))])
    fields = {
        "width": WIDTH,
        "height": HEIGHT,
        "distortion_model": model,
        "d": LENSES[model] if d is None else d,
        "k": K.ravel().tolist(),
        "p": P.ravel().tolist(),
        "roi": roi,
        "binning_x": 0,
        "binning_y": 0,
    }
    return SimpleNamespace(**{**fields, **changes})


def seen_at(points: np.ndarray, model: str) -> np.ndarray:
    """Pixels (N, 2) at which the lens shows points (N, 3)."""
    D, zero = np.array(LENSES[model]), np.zeros(3)
    if model == "equidistant":
        return cv2.fisheye.projectPoints(points[:, None], zero, zero, K, D[:, None])[0][:, 0]
    return cv2.projectPoints(points, zero, zero, K, D)[0][:, 0]


def dotted(model: str) -> tuple[Frame, np.ndarray]:
    """Dots on a plane 2 m away as the lens shows them: colour, depth in millimetres, a mask; and where a pinhole sees them."""
    grid = np.stack(np.meshgrid(np.linspace(-0.9, 0.9, 7), np.linspace(-0.6, 0.6, 5)), -1).reshape(-1, 2)
    points = np.concatenate([grid, np.full((len(grid), 1), 2.0)], 1)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for x, y in seen_at(points, model):
        cv2.circle(rgb, (round(x * 16), round(y * 16)), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    depth = np.where(rgb[..., 0] > 127, 2000, 0).astype(np.uint16)
    camera = read_calibration(info(model)).of_image(rectified=False)
    straight = points[:, :2] / points[:, 2:] @ K[:2, :2] + K[:2, 2]
    return Frame(1, "cam", rgb, depth, 0.001, camera, {"dots": depth > 0}), straight


def centres(picture: np.ndarray) -> np.ndarray:
    count, _, _, found = cv2.connectedComponentsWithStats((picture > 127).astype(np.uint8))
    assert count == 36
    return found[1:]


@pytest.mark.parametrize("model", LENSES)
def test_dots_come_to_lie_where_a_pinhole_sees_them(model):
    frame, straight = dotted(model)
    bent = centres(frame.rgb[..., 0])
    flat = Rectifier()(frame, read_calibration(info(model)))
    assert pytest.approx(K) == flat.camera.K
    for picture in (flat.rgb[..., 0], flat.depth // 8, flat.masks["dots"] * 255):
        gaps = np.linalg.norm(centres(picture)[:, None] - straight[None], axis=2).min(0)
        assert gaps.max() < 0.6
    assert np.linalg.norm(bent[:, None] - straight[None], axis=2).min(0).max() > 2
    # Nothing between the distances of two surfaces: nearest pixels, no mixture.
    assert set(np.unique(flat.depth)) == {0, 2000}


def test_float_depth_stays_float_and_maps_are_made_once(monkeypatch):
    frame, _ = dotted("plumb_bob")
    metres = Frame(1, "cam", frame.rgb, (frame.depth / 1000).astype(np.float32), 1.0, frame.camera)
    made = []
    real = cv2.initUndistortRectifyMap
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", lambda *a: made.append(1) or real(*a))
    rectify = Rectifier()
    for _ in range(3):
        flat = rectify(metres, read_calibration(info()))
    assert flat.depth.dtype == np.float32 and set(np.unique(flat.depth)) == {0.0, 2.0}
    assert len(made) == 1
    rectify(metres, read_calibration(info(d=[0.1, 0, 0, 0, 0])))
    assert len(made) == 2


def test_intrinsics_of_raw_and_rectified_images():
    calibration = read_calibration(info())
    assert calibration.distorted
    assert calibration.of_image(rectified=False).fx == 120.0
    assert calibration.of_image(rectified=True).fx == pytest.approx(108.0)
    # Without distortion P is right for both; without P there is only K.
    assert read_calibration(info(d=[0.0] * 5)).of_image(rectified=False).fx == pytest.approx(108.0)
    assert not read_calibration(info(d=[])).distorted
    assert read_calibration(info(p=[0.0] * 12)).of_image(rectified=True).fx == 120.0


def test_region_of_interest_and_binning():
    roi = SimpleNamespace(x_offset=20, y_offset=10, width=80, height=60)
    camera = read_calibration(info(roi=roi, binning_x=2, binning_y=2)).of_image(rectified=False)
    assert (camera.fx, camera.cx, camera.cy, camera.width, camera.height) == (60.0, 30.25, 24.5, 40, 30)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "omnidirectional", "d": [0.1]}, "distortion_model 'omnidirectional'; input.rectify knows plumb_bob"),
        ({"d": [0.1, 0.2]}, "2 coefficients"),
        ({"d": [0.1, float("nan"), 0, 0, 0]}, "finite"),
        ({"d": [0.1, 0, 0, 0, 0], "k": [0.0] * 9}, "no camera matrix K"),
    ],
)
def test_a_lens_that_cannot_be_undone_is_named(changes, words):
    model, rest = changes.get("model", "plumb_bob"), {k: v for k, v in changes.items() if k != "model"}
    calibration = read_calibration(info(model, **rest))
    frame, _ = dotted("plumb_bob")
    with pytest.raises(InputError, match=words):
        Rectifier()(frame, calibration)


def test_which_topics_are_rectified():
    for name in (
        "/camera/rgb/image_rect_color",
        "/camera/depth/image_rect_raw",
        "/zed/left/image_rect",
        "/a/undistorted",
    ):
        assert is_rectified(name), name
    for name in ("/camera/color/image_raw", "/rectangle/image_raw", "/rgb/image"):
        assert not is_rectified(name), name
