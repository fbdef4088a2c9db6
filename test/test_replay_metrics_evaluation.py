"""Faulty masks, figures over attempts, and the readers of BOP folders and real frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.errors import UserError
from rfdetr_foundationpose.evaluate.attempts import Attempt, auc, detector_like_mask, summarize_attempts
from rfdetr_foundationpose.evaluate.ycbv import RealFrame, find_instances, load_frames, load_specs, visible_part
from rfdetr_foundationpose.objects import ContinuousSymmetry, DiscreteSymmetry
from rfdetr_foundationpose.overlay import OverlayModel
from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.metrics import PoseError, symmetry_group
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

YCBV = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "ycbv"


def test_faulty_mask_grows_loses_a_bite_and_is_reproducible():
    mask = np.zeros((200, 200), np.bool_)
    mask[60:140, 60:140] = True
    grown = detector_like_mask(mask, np.random.default_rng(0), dilate=4, bite=0.0)
    assert grown[56, 100]
    assert not grown[54, 100]
    assert (grown & mask).sum() == mask.sum()
    faulty = detector_like_mask(mask, np.random.default_rng(0), dilate=4, bite=0.15)
    lost = (mask & ~faulty).sum() / mask.sum()
    assert 0.05 < lost < 0.3
    np.testing.assert_array_equal(faulty, detector_like_mask(mask, np.random.default_rng(0), dilate=4, bite=0.15))
    assert not detector_like_mask(np.zeros_like(mask), np.random.default_rng(0)).any()


def attempt(step: str, adds_mm: float | None, object: str = "mug", confidence: float = 0.9) -> Attempt:
    error = None if adds_mm is None else PoseError(adds_mm, 1.0, 3 * adds_mm, adds_mm, adds_mm / 100, 3 * adds_mm / 100)
    return Attempt("s", 0, object, step, 10.0, error, "" if error else "refused: no depth", confidence)


def test_summary_separates_steps_and_objects_and_counts_refusals():
    attempts = [attempt("register", 5.0), attempt("register", 50.0, confidence=0.2), attempt("register", None, "box")]
    attempts.append(attempt("track", 1.0))
    summary = summarize_attempts(attempts)
    register = summary["register"]
    assert register["all"]["attempts"] == 3
    assert register["all"]["refused"] == 1
    assert register["all"]["adds_recall_0.1d"] == pytest.approx(1 / 3)
    assert register["by_object"]["box"]["translation_error_mm"]["p50"] is None
    assert register["all"]["confidence_right"] == 0.9
    assert register["all"]["confidence_wrong"] == 0.2
    assert summary["track"]["all"]["adds_recall_0.1d"] == 1.0
    assert register["all"]["add_recall_0.1d"] == 0.0  # 15 mm of 100 mm


def test_auc_is_the_area_under_the_recall_curve():
    errors = [PoseError(0, 0, 0, mm, 0, 0) for mm in (0.0, 50.0, 100.0, 500.0)]
    thresholds = np.linspace(0, 100, 2_001)
    curve = np.mean([[e.adds_mm < t for t in thresholds] for e in errors], axis=0)
    assert auc(errors) == pytest.approx(np.trapezoid(curve, thresholds) / 100, abs=1e-3)
    assert auc([*errors, None]) == pytest.approx(4 / 5 * auc(errors))
    assert auc([]) is None


@pytest.fixture
def bop(tmp_path) -> Path:
    scene = tmp_path / "test" / "000007"
    for folder in ("rgb", "depth", "mask_visib"):
        (scene / folder).mkdir(parents=True)
    (tmp_path / "models").mkdir()
    trimesh.creation.box(extents=(100, 60, 40)).export(tmp_path / "models" / "obj_000002.ply")
    # A half turn about z through x = 10 mm.
    turn = [-1, 0, 0, 20, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    info = {"2": {"symmetries_discrete": [turn], "symmetries_continuous": [{"axis": [0, 1, 0], "offset": [0, 0, 5]}]}}
    (tmp_path / "models" / "models_info.json").write_text(json.dumps(info))
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[..., 2] = 250  # red in OpenCV's order
    cv2.imwrite(str(scene / "rgb/000003.png"), rgb)
    cv2.imwrite(str(scene / "depth/000003.png"), np.full((48, 64), 5000, np.uint16))
    cv2.imwrite(str(scene / "mask_visib/000003_000000.png"), np.eye(48, 64, dtype=np.uint8) * 255)
    truth = {"cam_R_m2c": np.eye(3).ravel().tolist(), "cam_t_m2c": [10, 20, 500], "obj_id": 2}
    (scene / "scene_gt.json").write_text(json.dumps({"3": [truth]}))
    camera = {"cam_K": [100, 0, 32, 0, 100, 24, 0, 0, 1], "depth_scale": 0.1}
    (scene / "scene_camera.json").write_text(json.dumps({"3": camera}))
    (scene / "scene_gt_info.json").write_text(json.dumps({"3": [{"visib_fract": 0.75}]}))
    return tmp_path


def test_bop_folder_is_read_in_metres_and_rgb(bop):
    dataset = BopDataset(bop)
    ((scene, image, frame, (instance,)),) = list(dataset)
    assert (scene, image) == ("000007", 3)
    assert frame.rgb[0, 0].tolist() == [250, 0, 0]
    assert frame.depth[0, 0] * frame.depth_scale == pytest.approx(0.5)
    np.testing.assert_allclose(instance.T_cam_obj[:3, 3], (0.01, 0.02, 0.5))
    assert instance.mask.sum() == 48
    assert (instance.object, instance.visibility) == ("obj_000002", 0.75)
    (spec,) = dataset.specs
    assert spec.scale == 0.001
    assert spec.continuous[0].point == pytest.approx((0, 0, 0.005))
    turn = symmetry_group(spec.discrete)[1]
    np.testing.assert_allclose(turn[:3, 3], (0.02, 0, 0), atol=1e-9)
    np.testing.assert_allclose(turn[:3, :3], np.diag([-1.0, -1.0, 1.0]), atol=1e-9)


def listed_symmetries(folder: Path, rotations: Rotation) -> list[DiscreteSymmetry]:
    """What is read of rotations about (10, -20, 30) mm."""
    transforms = []
    for R in rotations.as_matrix():
        T = np.eye(4)
        T[:3, :3] = R
        T[:3, 3] = (np.eye(3) - R) @ (10, -20, 30)
        transforms.append(T.ravel().tolist())
    (folder / "models" / "models_info.json").write_text(json.dumps({"2": {"symmetries_discrete": transforms}}))
    (spec,) = BopDataset(folder).specs
    return list(spec.discrete)


@pytest.mark.parametrize("fold", range(2, 13))
def test_bop_lists_every_turn_of_an_axis(bop, fold):
    axis = np.array([1, 2, 2]) / 3
    turns = listed_symmetries(bop, Rotation.from_rotvec([axis * 2 * np.pi * k / fold for k in range(1, fold)]))
    assert [t.fold for t in turns] == [fold]
    assert abs(np.dot(turns[0].axis, axis)) == pytest.approx(1)
    off = np.array([0.01, -0.02, 0.03]) - turns[0].point
    np.testing.assert_allclose(np.cross(off, axis), 0, atol=1e-9)
    assert len(symmetry_group(turns)) == fold


@pytest.mark.parametrize(("group", "looks"), [("T", 12), ("O", 24), ("I", 60), ("D8", 16)])
def test_bop_lists_the_whole_group_of_a_solid(bop, group, looks):
    turns = listed_symmetries(bop, Rotation.create_group(group)[1:])
    assert len(symmetry_group(turns)) == looks
    assert len(turns) <= 3


def test_a_bop_turn_that_is_several_steps_of_its_axis_stands_for_all_of_them(bop):
    turns = listed_symmetries(bop, Rotation.from_rotvec([[0, 0, 144]], degrees=True))
    assert [t.fold for t in turns] == [5]


def test_a_bop_axis_of_any_length_is_read(bop):
    info = {"2": {"symmetries_continuous": [{"axis": [0, 0, 4], "offset": [0, 7, 0]}]}}
    (bop / "models" / "models_info.json").write_text(json.dumps(info))
    (spec,) = BopDataset(bop).specs
    assert spec.continuous == (ContinuousSymmetry((0, 0, 1), (0, 0.007, 0)),)


def test_a_folder_that_is_no_bop_data_set_says_what_is_missing(bop, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"scene_gt\.json"):
        BopDataset(tmp_path_factory.mktemp("empty"))
    with pytest.raises(FileNotFoundError, match="val"):
        BopDataset(bop, "val")


def wall(distance: float, size: tuple[int, int] = (48, 64)) -> Frame:
    """A frame that sees a wall at ``distance`` metres."""
    height, width = size
    camera = CameraIntrinsics(50.0, 50.0, width / 2, height / 2, width, height)
    depth = np.full(size, distance, np.float32)
    return Frame(0, "camera", np.zeros((height, width, 3), np.uint8), depth, 1.0, camera)


def test_visible_is_what_nothing_measured_stands_before():
    grid = np.linspace(-0.1, 0.1, 80)
    points = np.stack([*(a.ravel() for a in np.meshgrid(grid, grid)), np.zeros(6400)], 1)
    T = np.eye(4)
    T[2, 3] = 0.5
    free = wall(0.5)
    visible, share = visible_part(points, T, free)
    assert share == 1.0
    assert visible.sum() == pytest.approx(20 * 20, rel=0.12)
    half = replace(
        free, depth=np.where(np.arange(64) < 32, np.float32(0.3), np.float32(0.5)) * np.ones((48, 1), np.float32)
    )
    visible, share = visible_part(points, T, half)
    assert share == pytest.approx(0.5, abs=0.05)
    assert not visible[:, :32].any()
    assert visible_part(points, T, replace(free, depth=np.zeros_like(free.depth)))[1] == 1.0
    assert visible_part(points, T, wall(0.3))[1] == 0.0


def test_objects_without_a_mesh_are_named(tmp_path):
    real = RealFrame("a", wall(0.5), {"001_thing": np.eye(4)})
    with pytest.raises(UserError, match=r"001_thing; put them there as meshes/<name>\.glb"):
        load_specs(tmp_path, [real])


@pytest.mark.skipif(not (YCBV / "meshes").is_dir(), reason="the real YCB-Video frames are not here")
def test_real_frames_agree_with_their_ground_truth():
    """The projected meshes lie where depth says they are: units, intrinsics and frames are read right."""
    frames = load_frames(YCBV)
    specs = load_specs(YCBV, frames)
    instances = find_instances(frames, specs)
    assert len(instances) == 10
    assert ("0050_row048", "tomato_soup_can") not in {(i.scene, i.object) for i in instances}
    models = {spec.name: OverlayModel.load(spec) for spec in specs}
    by_name = {f.name: f.frame for f in frames}
    for instance in instances:
        model, frame = models[instance.object], by_name[instance.scene]
        measured = frame.depth[instance.visible] * frame.depth_scale
        measured = measured[measured > 0]
        centre = instance.T_cam_obj @ np.append((model.low + model.high) / 2, 1.0)
        assert instance.visible.sum() > 1000
        # Surfaces are not farther from the centre than half the box's diagonal; a box seen obliquely comes near to it.
        reach = np.linalg.norm(model.high - model.low) / 2
        assert np.median(np.abs(measured - centre[2])) < 0.7 * reach, (instance.scene, instance.object)
