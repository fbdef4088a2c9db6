"""The overlay is where the pose says, for any pose."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import trimesh

from rfdetr_foundationpose import overlay
from rfdetr_foundationpose.errors import UserError
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.overlay import OverlayModel, draw_overlay, silhouette
from rfdetr_foundationpose.pose.mesh import read_object
from rfdetr_foundationpose.types import CameraIntrinsics, Detection, ObjectPose, TrackState

CAMERA = CameraIntrinsics(500.0, 500.0, 320.0, 240.0, 640, 480)


def model(mesh: trimesh.Trimesh) -> OverlayModel:
    return OverlayModel(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


def at(x: float, y: float, z: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = (x, y, z)
    return T


def found(T: np.ndarray, state: TrackState = TrackState.TRACKING) -> ObjectPose:
    return ObjectPose("ball", 0, T, 0.9, 0.9, state, 0, "camera")


@pytest.mark.parametrize("subdivisions", [4, 6])
def test_silhouette_of_a_sphere_is_its_projection(subdivisions):
    """Both ways to fill: triangles, and (81,920 faces) closed points. A sphere of radius r at depth z, on the axis, shows
    a disc of radius f r / sqrt(z^2 - r^2)."""
    ball = model(trimesh.creation.icosphere(subdivisions, 0.1))
    mask = silhouette(ball, at(0, 0, 1.0), CAMERA) > 0
    radius = 500 * 0.1 / np.sqrt(1 - 0.01)
    v, u = np.mgrid[:480, :640]
    distance = np.hypot(u - 320, v - 240)
    assert not mask[distance > radius + 1.5].any()
    assert mask[distance < radius - 1.5].all()


def test_drawing_marks_the_contour_and_leaves_the_input_alone():
    rgb = np.zeros((480, 640, 3), np.uint8)
    ball = model(trimesh.creation.icosphere(3, 0.1))
    picture = draw_overlay(rgb, CAMERA, [found(at(0, 0, 1.0))], {"ball": ball}, text=["10.0 fps"])
    assert not rgb.any()
    assert picture.shape == rgb.shape
    v, u = np.nonzero(picture[..., 1] > 128)
    angles = np.arctan2(v - 240, u - 320)[np.abs(np.hypot(u - 320, v - 240) - 50) < 2]
    assert len(np.unique(np.degrees(angles) // 5)) >= 72  # all around
    lost = draw_overlay(rgb, CAMERA, [found(at(0, 0, 1.0), TrackState.LOST)], {"ball": ball})
    assert lost[..., 0].sum() > 2 * lost[..., 1].sum()


@pytest.mark.parametrize(
    "T",
    [at(0, 0, -1), at(0, 0, 0), at(50, 0, 1), at(0, 0, 0.05), np.full((4, 4), np.nan)],
    ids=["behind", "inside", "far aside", "very near", "not finite"],
)
def test_any_pose_is_drawn_without_an_error(T):
    rgb = np.full((480, 640, 3), 7, np.uint8)
    picture = draw_overlay(rgb, CAMERA, [found(T)], {"ball": model(trimesh.creation.icosphere(2, 0.1))})
    assert picture.shape == rgb.shape


def test_strided_views_and_detections_are_drawn():
    padded = np.zeros((480, 650, 4), np.uint8)
    detection = Detection("ball", "ball", 0.7, np.array([100, 100, 200, 180], np.float32), None, "rf-detr")
    picture = draw_overlay(padded[:, :640, :3], CAMERA, [], {}, [detection])
    assert tuple(picture[100, 150]) == overlay.DETECTION_COLOR


def test_load_scales_and_ignores_unused_vertices(tmp_path):
    box = trimesh.creation.box((100, 80, 200))
    box.vertices = np.concatenate([box.vertices, [[9e3, 0, 0]]])
    box.export(tmp_path / "box.ply")
    loaded = OverlayModel.load(ObjectSpec("box", tmp_path / "box.ply", scale=0.001))
    np.testing.assert_allclose(loaded.high - loaded.low, (0.1, 0.08, 0.2))


def test_the_drawn_mesh_is_that_of_the_poses(tmp_path):
    """A triangle and a quad in one binary PLY, as Blender exports them, and polygons of OFF: not every library reads these."""
    points = np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0.2, 0], [0, 0.2, 0], [0.05, 0.1, 0.3]], "<f4")
    faces = [(0, 3, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    head = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 5\nproperty list uchar uint vertex_indices\nend_header\n"
    )
    rows = b"".join(struct.pack(f"<B{len(f)}I", len(f), *f) for f in faces)
    (tmp_path / "m.ply").write_bytes(head.encode() + points.tobytes() + rows)
    lines = [
        "OFF",
        "5 5 0",
        *("{} {} {}".format(*p) for p in points),
        *(f"{len(f)} " + " ".join(map(str, f)) for f in faces),
    ]
    (tmp_path / "m.off").write_text("\n".join(lines))
    for name in ("m.ply", "m.off"):
        spec = ObjectSpec("m", tmp_path / name)
        drawn, posed = OverlayModel.load(spec), read_object(spec)
        np.testing.assert_allclose((drawn.low + drawn.high) / 2, posed.center, atol=1e-6)
        np.testing.assert_allclose(drawn.high - drawn.low, posed.extents, atol=1e-6)
        assert len(drawn.faces) == 6


@pytest.mark.parametrize(
    "content",
    [
        "",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n",
    ],
)
def test_load_names_a_mesh_that_cannot_be_used(tmp_path, content):
    (tmp_path / "bad.ply").write_text(content)
    with pytest.raises(UserError, match="bad.ply"):
        OverlayModel.load(ObjectSpec("bad", tmp_path / "bad.ply"))
