"""A thing is one object: which poses exclude each other, and which of two tracks goes. Meshes are the demo's."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.pipeline.convex_hull import ConvexHull, closed_volume, same_place
from rfdetr_foundationpose.pipeline.duplicates import DuplicateTracks, is_replaced_by, relation
from rfdetr_foundationpose.pipeline.extent import ObjectExtent
from rfdetr_foundationpose.pipeline.registration import MIN_EXPLAINED, explained
from rfdetr_foundationpose.pipeline.tracks import Track
from rfdetr_foundationpose.pose.confidence import FEATURES
from rfdetr_foundationpose.pose.estimator import Estimate
from rfdetr_foundationpose.synth.generate import load_scene_objects
from rfdetr_foundationpose.types import CameraIntrinsics, Detection, TrackState

CAMERA = CameraIntrinsics(608.0, 608.0, 319.5, 239.5, 640, 480)


@pytest.fixture(scope="module")
def geometry() -> dict[str, ObjectExtent]:
    models = load_scene_objects()
    return {
        m.name: ObjectExtent.from_vertices(m.arrays.vertices + m.center, m.diameter, m.arrays.faces) for m in models
    }


def track(object: str, T: np.ndarray, support: float = 0.8, confidence: float = 0.95, **more) -> Track:
    return Track(object, 0, TrackState.TRACKING, T, confidence, support=support, **more)


def pose(x: float, y: float, z: float, *turns: tuple[str, float]) -> np.ndarray:
    T = np.eye(4)
    for axis, degrees in turns:
        T[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() @ T[:3, :3]
    T[:3, 3] = x, y, z
    return T


def center_at(geometry: ObjectExtent, T: np.ndarray) -> np.ndarray:
    """T moved so that the middle of the object is where T's origin is."""
    T = T.copy()
    T[:3, 3] -= T[:3, :3] @ geometry.center
    return T


def rows(*values: float) -> np.ndarray:
    return np.vstack([np.reshape(values, (3, 4)), (0, 0, 0, 1)])


def test_hull_of_a_box_has_its_volume_and_share():
    box = trimesh.creation.box((0.1, 0.2, 0.3))
    hull = ConvexHull.from_points(box.vertices, closed_volume(box.vertices, box.faces))
    assert hull.volume == pytest.approx(0.006) and hull.is_solid and len(hull.planes) == 6
    turned = pose(0.3, 0.1, 0.9, ("x", 30), ("z", 70))
    moved = turned @ pose(0.0, 0.0, 0.15)
    assert hull.share_inside(turned, hull, turned) == 1.0
    assert hull.share_inside(turned, hull, moved) == pytest.approx(0.5, abs=0.1)
    assert hull.share_inside(turned, hull, turned @ pose(0.0, 0.21, 0.0)) == 0.0


def test_flat_and_tiny_meshes_have_a_hull_too():
    sheet = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0.1, 0.2, 0]])
    assert ConvexHull.from_points(sheet).volume == pytest.approx(0.101 * 0.201 * 0.001)
    assert ObjectExtent.from_vertices(sheet[:2], 0.1).hull.volume > 0


def test_volume_is_known_of_closed_meshes_only():
    box = trimesh.creation.box((0.1, 0.2, 0.3))
    box.apply_translation((1.0, 2.0, 3.0))
    corners = box.vertices[box.faces].reshape(-1, 3)  # as a textured mesh comes: no vertex shared
    assert closed_volume(corners, np.arange(36).reshape(-1, 3)) == pytest.approx(0.006)
    lid = box.face_normals[:, 2] > 0.5
    assert lid.sum() == 2 and closed_volume(box.vertices, box.faces[~lid]) is None


def test_what_is_hollow_or_has_gaps_is_not_solid(geometry):
    is_solid = {name for name, g in geometry.items() if g.hull.is_solid}
    assert is_solid == {"cereal_box", "soup_can"}


@pytest.mark.parametrize("share, same", [(0.30, False), (0.40, True)])
def test_a_third_of_a_thing_inside_a_solid_one_is_too_much(share, same):
    """A small cube that reaches into a large solid one: their hulls have little in common, but its share is not small."""
    large, small = trimesh.creation.box((0.3, 0.3, 0.3)), trimesh.creation.box((0.1, 0.1, 0.1))
    solid = ConvexHull.from_points(large.vertices, closed_volume(large.vertices, large.faces))
    other = ConvexHull.from_points(small.vertices, closed_volume(small.vertices, small.faces))
    at = pose(0.15 + 0.05 - 0.1 * share, 0.0, 0.0)
    assert other.share_inside(at, solid, np.eye(4)) == pytest.approx(share, abs=0.03)
    assert same_place(solid, np.eye(4), other, at) is same
    assert same_place(other, at, solid, np.eye(4)) is same


@pytest.mark.parametrize("gap", [0.0, -0.004])
def test_things_that_touch_are_two(geometry, gap):
    """Also where the poses are off by some millimetres: standing side by side, one before and one on the other."""
    box, mug, can = geometry["cereal_box"], geometry["mug"], geometry["soup_can"]
    flat = center_at(box, pose(0.0, 0.0, 1.0, ("x", 90)))
    size = {name: np.ptp(g.points, axis=0) for name, g in geometry.items()}
    for beside, other, other_size in ((mug, "mug", size["mug"]), (can, "soup_can", size["soup_can"])):
        for axis in range(3):
            offset = np.zeros(3)
            offset[axis] = (size["cereal_box"][axis] + other_size[axis]) / 2 + gap
            upright = center_at(box, pose(0.0, 0.0, 1.0))
            assert not same_place(box.hull, upright, beside.hull, center_at(beside, pose(*(offset + (0, 0, 1)))))
        stands = center_at(beside, pose(0.0, -(size["cereal_box"][2] + other_size[2]) / 2 - gap, 1.0, ("x", 90)))
        duplicates = DuplicateTracks(geometry)
        a, b = track("cereal_box", flat), track(other, stands)
        assert not duplicates.are_duplicates(a, b, CAMERA) and duplicates.redundant([a, b], CAMERA, judged=True) == []


def test_a_mug_before_a_box_hides_it_and_both_stay(geometry):
    """Their boxes in the image nearly coincide."""
    box = center_at(geometry["cereal_box"], pose(0.0, 0.0, 1.6))
    mug = center_at(geometry["mug"], pose(0.0, 0.0, 0.6, ("z", 20)))
    a, b = track("cereal_box", box, support=0.1, unsupported=9), track("mug", mug)
    assert DuplicateTracks(geometry).redundant([a, b], CAMERA, judged=True) == []


def test_a_can_in_an_open_crate_or_in_the_crook_of_the_drill_stays(geometry):
    walls = [((0.3, 0.2, 0.01), (0, 0, -0.07))]
    walls += [((0.01, 0.2, 0.15), (x, 0, 0)) for x in (-0.145, 0.145)] + [
        ((0.3, 0.01, 0.15), (0, y, 0)) for y in (-0.095, 0.095)
    ]
    crate = trimesh.util.concatenate([trimesh.creation.box(size, pose(*at)) for size, at in walls])
    hull = ConvexHull.from_points(crate.vertices, closed_volume(crate.vertices, crate.faces))
    can = geometry["soup_can"]
    assert not hull.is_solid
    assert not same_place(hull, np.eye(4), can.hull, center_at(can, pose(0.05, 0.0, -0.01)))
    drill = geometry["drill"]
    middle = center_at(can, pose(*drill.center))
    assert not same_place(drill.hull, np.eye(4), can.hull, middle)


# What the whole pipeline made of two generated videos; camera frame, rounded. In the first the can is a mug whose handle
# is hidden, in the second the cereal box is another one, and its pose reaches into the mug behind it.
CAN = rows(0.0232, 0.1196, -0.9925, 0.1116, -0.9719, -0.2298, -0.0504, -0.0003, -0.2341, 0.9659, 0.1109, 0.7033)
HANDLE_HIDDEN = rows(
    -0.0968, -0.0569, 0.9937, 0.0683, -0.1441, 0.9887, 0.0426, -0.0013, -0.9848, -0.139, -0.1039, 0.7192
)
MUG = rows(-0.5117, 0.8392, -0.1839, -0.0109, 0.1616, -0.1162, -0.98, -0.0433, -0.8438, -0.5312, -0.0761, 0.7033)
DRILL = rows(-0.5369, 0.8436, -0.0054, -0.1067, 0.5446, 0.3416, -0.766, -0.0431, -0.6443, -0.4142, -0.6429, 0.5862)
BOX = rows(-0.0283, -0.5352, 0.8443, -0.1791, 0.7073, -0.6075, -0.3614, -0.0144, 0.7064, 0.5869, 0.3957, 0.8502)
BEHIND = rows(0.9845, -0.1711, 0.0383, -0.093, -0.1043, -0.7469, -0.6567, -0.015, 0.1409, 0.6425, -0.7532, 0.8921)


def test_a_can_on_the_mug_that_it_was_taken_for_goes(geometry):
    can = track("soup_can", CAN, support=0.4, confidence=0.97, unsupported=3)
    mug = track("mug", HANDLE_HIDDEN, support=0.52, confidence=0.99)
    others = [track("mug", MUG), track("drill", DRILL)]
    duplicates = DuplicateTracks(geometry)
    assert duplicates.redundant([can, mug, *others], CAMERA, judged=True) == [(can, mug)]
    assert duplicates.redundant([can, mug, *others], CAMERA, judged=False) == []
    assert duplicates.rivals(mug, [can, *others], CAMERA) == [can]
    assert is_replaced_by(can, mug) and relation(can, mug) == "mug is in its place and surer"
    # Not for a hair's breadth, as the two would change places again and again.
    can.support = 0.5
    assert not is_replaced_by(can, mug) and not is_replaced_by(mug, can)


def test_a_box_that_reaches_into_a_mug_goes(geometry):
    box, mug = (
        track("cereal_box", BOX, support=0.82, confidence=0.9),
        track("mug", BEHIND, support=0.91, confidence=1.0),
    )
    assert DuplicateTracks(geometry).redundant([mug, box], CAMERA, judged=True) == [(box, mug)]
    # What is seen now stays, whatever was seen before.
    mug.unsupported = 1
    assert DuplicateTracks(geometry).redundant([mug, box], CAMERA, judged=True) == [(mug, box)]


def test_of_two_instances_of_one_object_the_surer_pose_stays_with_or_without_the_detector(geometry):
    first, second = track("mug", MUG, support=0.9, confidence=0.8), track("mug", MUG, support=0.3, confidence=0.9)
    second.instance_id = 1
    for judged in (False, True):
        assert DuplicateTracks(geometry).redundant([first, second], CAMERA, judged=judged) == [(first, second)]
    assert not is_replaced_by(second, first) and relation(first, second) == "it is the same thing as mug_1"


def estimate(T: np.ndarray, visibility: float, missing: float = 0.0) -> Estimate:
    features = np.zeros(len(FEATURES))
    features[FEATURES.index("missing")] = missing
    return Estimate(T, 0.9, visibility, features)


def test_a_pose_must_explain_what_was_detected(geometry):
    """Both from generated videos: another box with a fifth of the model in agreement, a drill that a mug half hides."""
    box = rows(0.8514, 0.5232, -0.0377, -0.199, -0.3597, 0.6346, 0.684, 0.0144, 0.3818, -0.5688, 0.7285, 0.8679)
    seen = Detection("cereal_box", "", 0.87, np.array([63.3, 130.9, 255.2, 268.8], np.float32), None, "rf-detr")
    wrong = explained(estimate(box, 0.183), seen, geometry["cereal_box"], CAMERA)
    assert wrong == pytest.approx(0.26, abs=0.03) and wrong < MIN_EXPLAINED
    drill = rows(-0.1407, -0.7109, -0.6891, -0.0143, -0.7788, -0.3503, 0.5204, -0.0299, -0.6113, 0.6098, -0.5044, 0.897)
    seen = Detection("drill", "", 0.77, np.array([259.6, 117.5, 396.3, 260.1], np.float32), None, "rf-detr")
    right = explained(estimate(drill, 0.538), seen, geometry["drill"], CAMERA)
    assert right == pytest.approx(0.46, abs=0.03) and right > MIN_EXPLAINED
    # Of a thin object that lies across its box little is seen, and all of that is explained.
    rod = ObjectExtent.from_vertices(trimesh.creation.cylinder(0.004, 0.4).vertices)
    across = pose(0.0, 0.0, 1.0, ("y", 90), ("z", 45))
    seen = Detection("rod", "", 0.9, rod.project(across, CAMERA).astype(np.float32), None, "rf-detr")
    assert explained(estimate(across, 0.9), seen, rod, CAMERA) == pytest.approx(0.9, abs=0.01)
    # What has no depth speaks neither for nor against it; without any, or out of view, nothing is explained.
    assert explained(estimate(across, 0.2, missing=0.75), seen, rod, CAMERA) == pytest.approx(0.8, abs=0.01)
    assert explained(estimate(across, 0.0, missing=1.0), seen, rod, CAMERA) == 0.0
    assert explained(estimate(pose(0, 0, -1), 0.9), seen, rod, CAMERA) == 0.0
