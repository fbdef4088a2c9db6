"""Poses as messages: frames, units, quaternions, boxes; and rosbags reads them back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker

from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.overlay import OverlayModel
from rfdetr_foundationpose.ros import compat, messages, serialization
from rfdetr_foundationpose.ros.serialization import PictureBytes, PoseBytes, serialized
from rfdetr_foundationpose.types import ObjectPose, TrackState

STAMP = 1_700_000_000_123_456_789
SHAPE = messages.Shape(
    messages.mesh_uri(Path("/meshes/a mug.obj")), 0.001, np.array([0.0, -0.1, 0.0]), np.array([0.1, 0.1, 0.3])
)


def tracked(state: TrackState = TrackState.TRACKING, rotation: Rotation | None = None) -> ObjectPose:
    T = np.eye(4)
    T[:3, :3] = (rotation or Rotation.from_euler("z", 90, degrees=True)).as_matrix()
    T[:3, 3] = (0.1, -0.2, 0.8)
    return ObjectPose("mug", 1, T, 0.87, 0.9, state, STAMP, "camera_color_optical_frame")


def test_pose_stamped_has_the_images_header_and_metres():
    message = messages.pose_stamped(tracked())
    assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == STAMP
    assert message.header.frame_id == "camera_color_optical_frame"
    p, q = message.pose.position, message.pose.orientation
    assert (p.x, p.y, p.z) == pytest.approx((0.1, -0.2, 0.8))
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0, 0, 0.5**0.5, 0.5**0.5))


def test_quaternions_are_unit_with_w_not_negative_and_give_the_rotation_back():
    for rotation in Rotation.random(50, rng=np.random.default_rng(0)):
        q = messages.quaternion(rotation.as_matrix())
        values = np.array([q.x, q.y, q.z, q.w])
        assert np.linalg.norm(values) == pytest.approx(1)
        assert q.w >= 0
        assert (Rotation.from_quat(values).inv() * rotation).magnitude() < 1e-9


def test_quaternions_are_those_of_scipy_also_of_half_turns_and_single_precision():
    rng = np.random.default_rng(1)
    turns = [Rotation.from_rotvec(np.pi * np.array(axis, float)) for axis in ([1, 0, 0], [0, 1, 0], [0, 0, 1])]
    turns += [Rotation.from_rotvec((np.pi - 1e-9) * np.array([0.6, -0.8, 0.0])), Rotation.identity()]
    for rotation in [*turns, *Rotation.random(200, rng=rng)]:
        R = rotation.as_matrix()
        assert messages.unit_quaternion(R.tolist()) == pytest.approx(
            Rotation.from_matrix(R).as_quat(canonical=True), abs=1e-12
        )
        single = messages.unit_quaternion(R.astype(np.float32).tolist())
        assert (Rotation.from_quat(single).inv() * rotation).magnitude() < 1e-6
        assert np.linalg.norm(single) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("frame_id", ["", "c", "camera", "camera_color_optical_frame", "kamera_für_alles"])
def test_the_bytes_of_a_pose_are_read_as_its_message(frame_id):
    """Also after another camera's, and for every length of a frame's name: what follows it is aligned."""
    pose_bytes = PoseBytes()
    for rotation in Rotation.random(5, rng=np.random.default_rng(2)):
        for name in (frame_id, frame_id + "2"):
            found = replace(tracked(rotation=rotation), frame_id=name, stamp_ns=STAMP + 10**9 - 1)
            message = messages.pose_stamped(found)
            assert len(pose_bytes(found)) == len(serialize_message(message))
            assert deserialize_message(pose_bytes(found), PoseStamped) == message
    assert deserialize_message(serialized(found, pose_bytes)[0], PoseStamped) == message


def test_of_a_representation_that_is_not_known_rclpy_makes_every_pose(monkeypatch):
    monkeypatch.setattr(serialization, "serialize_message", lambda message: serialize_message(message) + b"more")
    made = PoseBytes()(tracked())
    assert made.endswith(b"more")
    assert deserialize_message(made.removesuffix(b"more"), PoseStamped) == messages.pose_stamped(tracked())


@pytest.mark.parametrize("frame_id", ["", "c", "camera", "camera_color_optical_frame", "kamera_für_alles"])
def test_the_bytes_of_a_picture_are_read_as_its_message(frame_id):
    """Of every size and camera in turn, and of rows that lie apart."""
    made = PictureBytes()
    for width, name in ((5, frame_id), (5, frame_id), (4, frame_id), (5, frame_id + "2")):
        rgb = np.random.default_rng(width).integers(0, 255, (3, 2 * width, 3), np.uint8)[:, ::2]
        sent = deserialize_message(bytes(made(rgb, STAMP, name)), Image)
        assert (sent.header, sent.encoding) == (messages.header(STAMP, name), "rgb8")
        assert (sent.height, sent.width, sent.step, sent.is_bigendian) == (3, width, 3 * width, 0)
        assert sent.data.tobytes() == rgb.tobytes()


def test_of_a_representation_that_is_not_known_there_are_no_bytes_of_a_picture(monkeypatch):
    monkeypatch.setattr(serialization, "serialize_message", lambda message: serialize_message(message) + b"more")
    assert PictureBytes()(np.zeros((2, 3, 3), np.uint8), STAMP, "camera") is None


def test_transform_goes_from_camera_to_prefixed_object():
    message = messages.transform_stamped(tracked(), "seen/")
    assert message.header.frame_id == "camera_color_optical_frame"
    assert message.child_frame_id == "seen/mug_1"
    assert message.transform.translation.z == pytest.approx(0.8)


def test_markers_show_the_mesh_and_vanish_when_lost():
    mesh, axes = messages.marker_array([tracked()], {"mug": SHAPE}).markers
    assert mesh.mesh_resource == "file:///meshes/a%20mug.obj"
    assert (mesh.scale.x, mesh.scale.y, mesh.scale.z) == (0.001, 0.001, 0.001)
    assert mesh.action == Marker.ADD
    assert len(axes.points) == len(axes.colors) == 6
    assert (mesh.ns, axes.ns) == ("mug_1/mesh", "mug_1/axes")
    lost = messages.marker_array([tracked(TrackState.LOST)], {"mug": SHAPE}).markers
    assert {m.action for m in lost} == {Marker.DELETE}


def test_rosbags_decodes_what_we_serialize():
    """An independent CDR reader with its own message definitions sees the same fields."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for message, name in (
        (messages.pose_stamped(tracked()), "geometry_msgs/msg/PoseStamped"),
        (messages.transform_stamped(tracked(), ""), "geometry_msgs/msg/TransformStamped"),
    ):
        read = store.deserialize_cdr(serialize_message(message), name)
        assert read.header.stamp.sec * 10**9 + read.header.stamp.nanosec == STAMP
        assert read.header.frame_id == "camera_color_optical_frame"
    array = messages.marker_array([tracked()], {"mug": SHAPE})
    read = store.deserialize_cdr(serialize_message(array), "visualization_msgs/msg/MarkerArray")
    assert [m.ns for m in read.markers] == ["mug_1/mesh", "mug_1/axes"]


class Fields(SimpleNamespace):
    """A message whose fields are made when they are first named, as deep as they go."""

    def __getattr__(self, name: str) -> Fields:
        setattr(self, name, Fields())
        return getattr(self, name)


@pytest.fixture()
def vision_msgs(monkeypatch):
    """vision_msgs 4's three messages by their fields: the package is not on PyPI."""
    module = SimpleNamespace(
        Detection3DArray=lambda header: Fields(header=header, detections=[]),
        Detection3D=lambda header, id: Fields(header=header, id=id, results=[]),
        ObjectHypothesisWithPose=Fields,
    )
    monkeypatch.setattr(compat, "vision_msgs", module)


def test_detections_carry_class_score_pose_and_the_meshs_box(vision_msgs):
    head = messages.header(STAMP, "camera_color_optical_frame")
    array = messages.detection_array([tracked()], {"mug": SHAPE}, head)
    (detection,) = array.detections
    assert array.header == detection.header == head
    assert detection.id == "mug_1"
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("mug", 0.87)
    assert result.pose.pose.position.z == pytest.approx(0.8)
    size, center = detection.bbox.size, detection.bbox.center.position
    assert (size.x, size.y, size.z) == pytest.approx((0.1, 0.2, 0.3))
    # The box's centre (0.05, 0, 0.15) of the mesh frame, turned by 90 degrees about z.
    assert (center.x, center.y, center.z) == pytest.approx((0.1, -0.15, 0.95))


def test_without_vision_msgs_detections_are_refused(monkeypatch):
    monkeypatch.setattr(compat, "vision_msgs", None)
    with pytest.raises(RuntimeError, match="vision_msgs"):
        messages.detection_array([], {}, messages.header(0, "camera"))


def test_missing_packages_are_named_with_their_consequence(monkeypatch):
    monkeypatch.setattr(
        compat,
        "_CONSEQUENCES",
        (
            ("tf2_ros", "tf2-ros-py", None, "no /tf is broadcast"),
            ("vision_msgs", "vision-msgs", object(), "never said"),
        ),
    )
    (sentence,) = compat.missing()
    assert "tf2_ros is not installed: no /tf is broadcast" in sentence
    assert "tf2-ros-py" in sentence


def test_a_mesh_of_an_installed_package_is_named_for_every_machine(tmp_path, monkeypatch):
    share = tmp_path / "install" / "share"
    mesh = share / "my_objects" / "meshes" / "mug.obj"
    mesh.parent.mkdir(parents=True)
    trimesh.creation.box((0.1, 0.1, 0.2)).export(mesh)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'install'}")
    assert messages.mesh_uri(mesh) == "package://my_objects/meshes/mug.obj"
    elsewhere = tmp_path / "mug.obj"
    elsewhere.write_bytes(mesh.read_bytes())
    assert messages.mesh_uri(elsewhere).startswith("file:///")
    (mesh.parent / "link.obj").symlink_to(elsewhere)  # colcon build --symlink-install
    assert messages.mesh_uri(mesh.parent / "link.obj") == "package://my_objects/meshes/link.obj"
    model = OverlayModel.load(ObjectSpec("mug", mesh))
    assert len(messages.marker_shape(ObjectSpec("mug", mesh), model, "auto").triangles) == 0
    drawn = messages.marker_shape(ObjectSpec("mug", elsewhere), model, "auto")
    assert drawn.triangles.shape == (36, 3)
    marker = messages.marker_array([tracked()], {"mug": drawn}).markers[0]
    assert (marker.type, len(marker.points), marker.scale.x) == (Marker.TRIANGLE_LIST, 36, 1.0)
    np.testing.assert_allclose(np.array([[p.x, p.y, p.z] for p in marker.points]), drawn.triangles)
    assert messages.marker_shape(ObjectSpec("mug", elsewhere), model, "file").triangles.size == 0


def test_files_that_viewers_draw_differently_are_sent_as_triangles(tmp_path, monkeypatch):
    share = tmp_path / "install" / "share" / "my_objects"
    share.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "install"))
    box = trimesh.creation.box((0.1, 0.1, 0.2))
    for suffix, named in ((".stl", True), (".ply", True), (".glb", False), (".gltf", False)):
        spec = ObjectSpec("mug", share / f"mug{suffix}")
        if suffix == ".gltf":
            for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(box)).items():
                (share / ("mug.gltf" if name == "model.gltf" else name)).write_bytes(data)
        else:
            box.export(spec.mesh)
        shape = messages.marker_shape(spec, OverlayModel.load(spec), "auto")
        assert (shape.triangles.size == 0) == named, suffix
        assert messages.marker_shape(spec, OverlayModel.load(spec), "file").triangles.size == 0


@pytest.mark.parametrize(("unit", "named"), [(1.0, True), (0.0254, False)])
def test_a_viewer_applies_the_unit_of_collada_by_itself(tmp_path, monkeypatch, unit, named):
    share = tmp_path / "install" / "share" / "my_objects"
    share.mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "install"))
    trimesh.creation.box((4, 4, 8)).export(share / "mug.dae")
    text = (share / "mug.dae").read_text()
    (share / "mug.dae").write_text(text.replace("<up_axis>", f'<unit name="u" meter="{unit}"/><up_axis>'))
    spec = ObjectSpec("mug", share / "mug.dae", scale=unit)
    model = OverlayModel.load(spec)
    assert model.unit == unit
    assert (messages.marker_shape(spec, model, "auto").triangles.size == 0) == named
    assert messages.marker_shape(spec, model, "file").scale == pytest.approx(1.0)


def test_triangles_of_a_fine_mesh_are_few_and_keep_its_size():
    fine = trimesh.creation.icosphere(subdivisions=5, radius=0.1)
    model = OverlayModel(np.asarray(fine.vertices), np.asarray(fine.faces))
    corners = messages.triangles(model)
    assert 200 < len(corners) / 3 <= messages.MOST_TRIANGLES
    assert np.ptp(corners, axis=0) == pytest.approx(np.full(3, 0.2), abs=0.03)


def test_covariance_falls_with_the_confidence_and_is_left_out_by_default():
    sure, unsure = (np.reshape(messages.covariance(c, 0.2), (6, 6)) for c in (0.95, 0.2))
    assert (np.diag(sure) < np.diag(unsure)).all()
    assert np.count_nonzero(sure) == 6
    # Two thirds within one standard deviation: a tenth of the size.
    np.testing.assert_allclose(
        np.sqrt(np.diag(np.reshape(messages.covariance(0.6827, 0.2), (6, 6)))), [0.02] * 3 + [0.2] * 3, rtol=1e-3
    )
    for size, confidence in ((0.05, 0.3), (0.2, 0.97), (1.0, 0.5)):
        assert messages.confidence_of(messages.covariance(confidence, size)) == pytest.approx(confidence, abs=1e-6)
    assert messages.confidence_of(messages.covariance(1.0, 0.2)) == pytest.approx(0.99, abs=1e-6)
    assert messages.pose_with_covariance(tracked(), SHAPE).pose.covariance[0] > 0
