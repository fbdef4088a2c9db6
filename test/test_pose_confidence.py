"""Confidence: a pose that fits but is flipped gets little of it where the texture tells, and no blame where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
import warp as wp
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose import agreement_columns as columns
from rfdetr_foundationpose.pose import agreement_kernels as kernels
from rfdetr_foundationpose.pose.agreement_columns import (
    ALL_SUMS,
    DESCRIBED,
    FEATURES,
    MODEL_PIXELS,
    POSE,
    RESULT_COLUMNS,
    SHAPE_SUMS,
    SUM_AGREE,
    SUM_FREE_SPACE_VIOLATION,
    SUM_MODEL,
    SUM_OCCLUDED,
    SUM_OCCUPANCY,
    SUM_VIOLATED,
)
from rfdetr_foundationpose.pose.agreement_kernels import CHROMA_NOISE, DARK
from rfdetr_foundationpose.pose.checkpoints import CheckpointError
from rfdetr_foundationpose.pose.confidence import FILE_NAME, TEXTURE, Calibration, fit, load_calibration
from rfdetr_foundationpose.pose.estimator import Estimate, PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from support.pose_scenes import object_of, prepared, random_pose, scene_of
from support.runners import stays

SHIPPED = load_calibration(Path(__file__).parents[1] / "models" / "pose")
SETTINGS = PoseConfig()


AREAS = ("free_space_violation", "occupancy")


def seen(
    shown: trimesh.Trimesh, model: trimesh.Trimesh, T, turns, wall: float = 0.0, cover: tuple[int, float] = (0, 0.0)
) -> list[Estimate]:
    """Estimates of ``model`` at T and turned about its own axes, in an image of ``shown`` at T, before a wall at so many metres.
    cover: columns from the image's left that something hides, at so many metres."""
    frame, _ = scene_of(object_of(shown), T)
    frame.depth[frame.depth == 0] = wall
    frame.depth[:, : cover[0]] = cover[1]
    item = object_of(model)
    estimator = PoseEstimator(
        [item],
        WarpRenderer([item], "cpu"),
        Networks(stays(), stays(), stays()),
        SETTINGS,
        "cpu",
        calibration=SHIPPED,
    )
    poses = [T @ np.diag([*signs, 1.0]) for signs in turns]
    return estimator.track(prepared(estimator, frame), [TrackRequest("thing", item.from_centered(P)) for P in poses])


def textured_box_of_many_colours() -> trimesh.Trimesh:
    """A 12 x 8 x 5 cm box with a fine texture that no turn repeats."""
    mesh = trimesh.creation.box((0.12, 0.08, 0.05)).subdivide().subdivide().subdivide()
    mesh.unmerge_vertices()
    colors = np.random.default_rng(0).integers(30, 255, (len(mesh.faces), 3))
    mesh.visual.face_colors = np.c_[colors, np.full(len(colors), 255)].astype(np.uint8)
    return mesh


RIGHT, OVER = (1.0, 1.0, 1.0), [(-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, -1.0, -1.0)]


def grey(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    mesh = mesh.copy()
    mesh.visual.face_colors = np.full((len(mesh.faces), 4), (150, 150, 150, 255), np.uint8)
    return mesh


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_textured_box_that_is_flipped_has_a_low_confidence(seed):
    box = textured_box_of_many_colours()
    right, *over = seen(box, box, random_pose(seed), [RIGHT, *OVER])
    assert right.confidence > 0.9
    for estimate in over:
        assert estimate.visibility == pytest.approx(right.visibility, abs=0.01), "by shape it fits as well"
        assert estimate.confidence < 0.4
        assert estimate.confidence > SETTINGS.accept_confidence, "it is where it says, and stays tracked"


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_is_blamed_for_texture_that_it_has_not(seed):
    box = textured_box_of_many_colours()
    T = random_pose(seed)
    for estimate in (
        *seen(grey(box), grey(box), T, [RIGHT, *OVER]),
        *seen(box, grey(box), T, [RIGHT, *OVER]),  # a mesh without the object's texture
    ):
        assert estimate.confidence > 0.7
        match, missed = estimate.features[[FEATURES.index(name) for name in TEXTURE]]
        assert abs(match) < 0.1
        assert missed < 0.1


def cup(handles: tuple[int, ...] = (1,)) -> trimesh.Trimesh:
    """A grey mug, 8 cm wide and 10 cm high, open at +z, with handles at +x (1) and -x (-1)."""
    wall = trimesh.creation.annulus(r_min=0.036, r_max=0.04, height=0.1, sections=48)
    bottom = trimesh.creation.cylinder(radius=0.04, height=0.006, sections=48)
    bottom.apply_translation([0, 0, -0.047])
    parts = [wall, bottom]
    for side in handles:
        for x, z, size in ((0.052, 0.029, (0.03, 0.012)), (0.052, -0.029, (0.03, 0.012)), (0.065, 0, (0.012, 0.07))):
            bar = trimesh.creation.box((size[0], 0.012, size[1]))
            bar.apply_translation([side * x, 0, z])
            parts.append(bar)
    return grey(trimesh.util.concatenate(parts))


def tilted(degrees: float, spin: float) -> np.ndarray:
    """(4, 4) T_cam_center 0.7 m away of a mug seen from above by ``degrees``, its handle ``spin`` degrees off the right."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xz", [90 + degrees, spin], degrees=True).as_matrix()
    T[:3, 3] = [0.02, -0.03, 0.7]
    return T


@pytest.mark.parametrize(("degrees", "spin"), [(40, -20), (50, 60), (60, 0)])
def test_a_mug_on_its_head_has_less_confidence(degrees, spin):
    """Its opening is seen where the model is closed, or its bottom where the model is open."""
    mug = cup()
    open_to_us = tilted(degrees, spin)
    on_its_head = open_to_us @ np.diag([1.0, -1, -1, 1])
    for at, name, falls in ((open_to_us, "free_space_violation", 0.4), (on_its_head, "occupancy", 0.08)):
        right, over = seen(mug, mug, at, [RIGHT, (1.0, -1.0, -1.0)], wall=1.2)
        assert right.confidence > 0.9
        assert [right.features[FEATURES.index(n)] for n in AREAS] == [0, 0]
        assert over.features[FEATURES.index(name)] > 0.1
        assert over.confidence < right.confidence - falls


def test_handles_that_are_not_there_cost_confidence():
    """The wall is seen through them, in areas that no slightly wrong silhouette has."""
    pot, body, T = cup((1, -1)), cup(()), tilted(0, 20)
    (right,), (wrong,) = (seen(shown, pot, T, [RIGHT], wall=1.2) for shown in (pot, body))
    free_space_violation = [estimate.features[FEATURES.index("free_space_violation")] for estimate in (right, wrong)]
    assert free_space_violation[0] == 0
    assert free_space_violation[1] > 0.2
    assert wrong.confidence < right.confidence - 0.3


def test_what_stands_before_an_object_does_not_fill_it():
    mug = cup()
    (covered,) = seen(mug, mug, tilted(30, 20), [RIGHT], wall=1.2, cover=(330, 0.5))
    assert covered.visibility < 0.7
    assert covered.features[FEATURES.index("occupancy")] == 0
    assert covered.confidence > 0.75


def described(sums, delta=(0.0, 0.0)) -> dict[str, np.ndarray]:
    """Features by name, of sums (N, ALL_SUMS)."""
    sums = np.asarray(sums, np.float32)
    n = len(sums)
    rows = wp.zeros((n, RESULT_COLUMNS), dtype=wp.float32, device="cpu")
    inputs = [
        wp.array(sums, dtype=wp.float32, device="cpu"),
        wp.array(np.tile(np.eye(4, dtype=np.float32), (n, 1, 1)), dtype=wp.mat44f, device="cpu"),
        wp.array(np.tile(np.float32(delta), (n, 1)), dtype=wp.vec2f, device="cpu"),
    ]
    wp.launch(kernels.describe, n, [*inputs, rows], device="cpu")
    found = rows.numpy()
    np.testing.assert_array_equal(found[:, POSE], np.tile(np.eye(4).ravel(), (n, 1)))
    np.testing.assert_array_equal(found[:, MODEL_PIXELS], sums[:, SUM_MODEL])
    return dict(zip(FEATURES, found[:, DESCRIBED].T, strict=True))


def test_features_are_what_they_are_said_to_be():
    sums = np.zeros((3, ALL_SUMS))
    # 1000 pixels of the model: 600 agree, 150 are hidden, 50 seen through, 200 have no depth.
    # Of those seen through 26 are in areas, of those hidden 72.
    sums[0, :SHAPE_SUMS] = 1000, 600, 150, 50, 300, 60
    sums[0, [SUM_FREE_SPACE_VIOLATION, SUM_OCCUPANCY]] = 26, 72
    sums[1, :SHAPE_SUMS] = 40, 0, 0, 0, 0, 0
    found = described(sums, (0.04, 4.0))
    expected = {
        "visible": 0.6,
        "violated": 50 / 650,
        "missing": 0.2,
        "residual": 0.5,
        "color": 0.1,
        "step": 0.2,
        "turn": 1,
        "free_space_violation": 0.2,
        "occupancy": 72 / 722,
    }
    assert {name: pytest.approx(found[name][0]) for name in expected} == expected
    assert (found["visible"][1], found["violated"][1], found["missing"][1]) == (0, 0, 1)
    for name in ("visible", "violated", "missing", "residual", "color", "texture_agreement", "texture_missing", *AREAS):
        assert found[name][2] == 0, "nothing in view"


def reference(rendered, observed, mask):
    """Agreement and missing by the definition: images (R, R, 3), mask (R, R)."""
    a, b = (x[mask] / (x[mask].sum(-1, keepdims=True) + DARK) for x in (rendered, observed))
    a, b = a - a.mean(0), b - b.mean(0)
    va, vb, vab = (np.mean(x * y, 0).sum() for x, y in ((a, a), (b, b), (a, b)))
    scale = np.sqrt((va + 3 * CHROMA_NOISE**2) * (vb + 3 * CHROMA_NOISE**2))
    return vab / scale, (min(va, np.sqrt(va * vb)) - vab) / scale


def agreement_sums(rgb, depth, xyz, poses, diameters) -> np.ndarray:
    """Sums (N, ALL_SUMS) of images (2, N, R, R, 3), rendered and observed; xyz (2, N, R, R, 3)."""
    n, size = depth.shape[1:3]
    partial = wp.empty((n, ALL_SUMS, size * int(kernels.LANES)), dtype=wp.float32, device="cpu")
    images = [wp.array(x, dtype=wp.float32, device="cpu") for x in (rgb[0], xyz[0], rgb[1], xyz[1])]
    inputs = [
        *images,
        wp.array(np.asarray(poses, np.float32), dtype=wp.mat44f, device="cpu"),
        wp.array(np.asarray(diameters, np.float32), dtype=wp.float32, device="cpu"),
    ]
    wp.launch(kernels.agreement, (n, size, kernels.LANES), [*inputs, partial], device="cpu")
    return partial.numpy().sum(2, dtype=np.float64)


def test_areas_are_told_from_rims():
    size, d = 40, 0.2
    depth = np.ones((2, 1, size, size), np.float32)
    depth[0, 0, :, 36:] = 0.0  # beside the model
    depth[1, 0, 2:12, 2:12] = 1.5  # an area seen through, 10 pixels wide
    depth[1, 0, 2:12, 20:26] = 1.5  # a rim of 6
    depth[1, 0, 15:25, 2:12] = 0.95  # before the model, within its sphere
    depth[1, 0, 28:38, 2:12] = 0.8  # before its sphere
    depth[1, 0, 15:25, 30:40] = 1.5  # ends 6 pixels on, where the model does
    depth[1, 0, 28:38, 20:30] = 0.0
    grid = np.broadcast_to(0.01 * np.linspace(-1, 1, size, dtype=np.float32), depth.shape)
    xyz = np.stack([grid * depth, grid.swapaxes(2, 3) * depth, depth], -1)
    pose = np.eye(4)
    pose[2, 3] = 1.0
    (sums,) = agreement_sums(0 * xyz, depth, xyz, pose[None], [d])
    assert sums[[SUM_OCCLUDED, SUM_VIOLATED]].tolist() == [200, 220]
    areas = [SUM_FREE_SPACE_VIOLATION, SUM_OCCUPANCY]
    assert sums[areas].tolist() == [16, 16]
    pose[2, 3] = 1.06  # the model's sphere begins behind it
    assert agreement_sums(0 * xyz, depth, xyz, pose[None], [d])[0, areas].tolist() == [16, 0]


def test_texture_sums_are_those_of_the_agreeing_pixels():
    rng = np.random.default_rng(0)
    n, size = 2, 40
    rgb = rng.random((2, n, size, size, 3), dtype=np.float32)
    rgb[1] = 0.6 * rgb[0] + 0.4 * rgb[1]
    depth = rng.choice([0.0, 1.0, 1.004, 1.2], (2, n, size, size)).astype(np.float32)
    diameters = np.array([0.1, 0.5], np.float32)
    difference = np.abs(depth[0] - depth[1])
    mask = (depth > 0).all(0) & (difference <= np.maximum(0.004, 0.05 * diameters)[:, None, None])
    xyz = np.stack([0 * depth, 0 * depth, depth], -1)
    sums = agreement_sums(rgb, depth, xyz, np.tile(np.eye(4), (n, 1, 1)), diameters)
    assert sums[:, SUM_AGREE].tolist() == mask.sum((1, 2)).tolist()
    # The kernel takes 1/3 from every channel, which no variance notices.
    expected = [reference(rgb[0, i], rgb[1, i], mask[i]) for i in range(n)]
    found = described(sums)
    np.testing.assert_allclose(np.stack([found["texture_agreement"], found["texture_missing"]], 1), expected, atol=1e-4)


def test_missing_is_only_what_the_model_has_and_the_image_could_show():
    def compared(a, b):
        sums = [*[len(a)] * 2, 0, 0, 0, 0, *a.sum(0), *b.sum(0), (a * a).sum(), (b * b).sum(), (a * b).sum(), 0, 0]
        found = described([sums])
        return np.array([found["texture_agreement"][0], found["texture_missing"][0]])

    rng = np.random.default_rng(1)
    texture_, other, glare = rng.normal(0, 0.1, (3, 5000, 3))
    for image in (texture_, texture_ + 0.05, 0.5 * texture_):
        match, missed = compared(texture_, image)
        assert match > 0.8
        assert missed == pytest.approx(0, abs=1e-9)
    match, missed = compared(texture_, other)
    assert abs(match) < 0.1
    assert missed > 0.8
    # A highlight is no sign against a pose, whatever it hides of a faint texture.
    assert compared(0.2 * texture_, 0.2 * texture_ + 2 * glare)[1] < 0.05
    assert np.abs(compared(0.02 * texture_, 0.02 * other)).max() < 0.01


def test_fitted_signs_are_what_the_features_mean():
    rng = np.random.default_rng(2)
    x = rng.random((400, len(FEATURES)))
    # Right where nothing agrees: an honest fit of these would reward disagreement.
    calibration = fit(x, x[:, FEATURES.index("texture_agreement")] + 0.1 * rng.normal(size=400) < 0.5)
    assert calibration.coefficients[FEATURES.index("texture_agreement")] == 0
    supports = [name for name, c in zip(FEATURES, calibration.coefficients, strict=True) if c > 0]
    assert set(supports) <= {"visible"}


def test_confidence_falls_with_the_support_below_the_full_one():
    """By a visible share of 0.15 a pose is verified as far as it can be; with half of that it is worth half as much."""
    calibration = Calibration(np.zeros(len(FEATURES)), intercept=2.0)
    described = np.zeros((4, len(FEATURES)))
    described[:, FEATURES.index("visible")] = 0.6, 0.15, 0.075, 0.0
    full = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(calibration.probability(described), [full, full, full / 2, 0.0])


def test_a_calibration_names_its_features_and_is_refused_where_they_differ(tmp_path):
    tree = SHIPPED.to_json()
    coefficients = dict(tree["coefficients"])
    file = tmp_path / FILE_NAME

    def written(values) -> None:
        file.write_text(json.dumps(tree | {"coefficients": values}))

    written(dict(reversed(coefficients.items())))
    np.testing.assert_array_equal(load_calibration(tmp_path).coefficients, SHIPPED.coefficients)
    written({name: c for name, c in coefficients.items() if name != "violated"})
    with pytest.raises(CheckpointError, match="lacks violated"):
        load_calibration(tmp_path)
    written(coefficients | {"gloss": 1.0})
    with pytest.raises(CheckpointError, match="has gloss, which this version does not know"):
        load_calibration(tmp_path)
    for broken in ("{", "[]", json.dumps(tree | {"coefficients": [1.0] * 11}), json.dumps(tree | {"intercept": None})):
        file.write_text(broken)
        with pytest.raises(CheckpointError, match="is no calibration"):
            load_calibration(tmp_path)


def test_rows_have_a_name_for_every_feature():
    named = {name.lower(): value for name, value in vars(columns).items() if name.startswith("ROW_")}
    assert [named[f"row_{feature}"] for feature in FEATURES] == list(range(DESCRIBED.start, DESCRIBED.stop))
    assert max(value for name, value in vars(columns).items() if name.startswith("SUM_")) == ALL_SUMS - 1
