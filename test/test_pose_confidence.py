"""Confidence: a pose that fits but is turned over gets little of it where the print tells, and no blame where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import warp as wp
from pose_scenes import object_of, prepared, random_pose, scene_of

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose import agreement_kernels as kernels
from rfdetr_foundationpose.pose.agreement_kernels import CHROMA_NOISE, DARK, DESCRIBED, PRINTED_SUMS, RESULT_COLUMNS
from rfdetr_foundationpose.pose.confidence import FEATURES, fit, load_calibration
from rfdetr_foundationpose.pose.estimator import Estimate, Networks, PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.renderer import WarpRenderer

SHIPPED = load_calibration(Path(__file__).parents[1] / "models" / "pose")
SETTINGS = PoseConfig()


class Stays:
    """A refiner that is content with any pose."""

    name, degraded, capturable, dtype, late_prepares = "eager", "", False, torch.float32, 0

    def prepare(self, batch: int, observed: int | None = None) -> None:
        pass

    def __call__(self, rendered, observed):
        return torch.zeros(len(rendered), 3), torch.zeros(len(rendered), 3)


def seen(shown: trimesh.Trimesh, model: trimesh.Trimesh, T, turns) -> list[Estimate]:
    """Estimates of ``model`` at T and turned about its own axes, in an image of ``shown`` at T."""
    frame, _ = scene_of(object_of(shown), T)
    item = object_of(model)
    estimator = PoseEstimator(
        [item],
        WarpRenderer([item], "cpu"),
        Networks(Stays(), Stays(), Stays()),
        SETTINGS,
        "cpu",
        calibration=SHIPPED,
    )
    poses = [T @ np.diag([*signs, 1.0]) for signs in turns]
    return estimator.track(prepared(estimator, frame), [TrackRequest("thing", item.from_centered(P)) for P in poses])


def printed_box() -> trimesh.Trimesh:
    """A 12 x 8 x 5 cm box with a fine print that no turn repeats."""
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
def test_a_printed_box_that_is_turned_over_has_a_low_confidence(seed):
    box = printed_box()
    right, *over = seen(box, box, random_pose(seed), [RIGHT, *OVER])
    assert right.confidence > 0.9
    for estimate in over:
        assert estimate.visibility == pytest.approx(right.visibility, abs=0.01), "by shape it fits as well"
        assert estimate.confidence < 0.4
        assert estimate.confidence > SETTINGS.accept_confidence, "it is where it says, and stays tracked"


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_is_blamed_for_print_that_it_has_not(seed):
    box = printed_box()
    T = random_pose(seed)
    for estimate in (
        *seen(grey(box), grey(box), T, [RIGHT, *OVER]),
        *seen(box, grey(box), T, [RIGHT, *OVER]),  # a mesh without the object's print
    ):
        assert estimate.confidence > 0.7
        match, missed = estimate.features[[FEATURES.index(name) for name in ("match", "missed")]]
        assert abs(match) < 0.1
        assert missed < 0.1


def described(sums, delta=(0.0, 0.0)) -> dict[str, np.ndarray]:
    """Features by name, of sums (N, PRINTED_SUMS)."""
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
    np.testing.assert_array_equal(found[:, kernels.POSE], np.tile(np.eye(4).ravel(), (n, 1)))
    np.testing.assert_array_equal(found[:, kernels.MODEL_PIXELS], sums[:, 0])
    return dict(zip(FEATURES, found[:, DESCRIBED].T, strict=True))


def test_features_are_what_they_are_said_to_be():
    sums = np.zeros((3, PRINTED_SUMS))
    # 1000 pixels of the model: 600 agree, 150 are hidden, 50 seen through, 200 have no depth.
    sums[0, :6] = 1000, 600, 150, 50, 300, 60
    sums[1, :6] = 40, 0, 0, 0, 0, 0
    found = described(sums, (0.04, 4.0))
    expected = {
        "visible": 0.6,
        "violated": 50 / 650,
        "missing": 0.2,
        "residual": 0.5,
        "color": 0.1,
        "step": 0.2,
        "turn": 1,
    }
    assert {name: pytest.approx(found[name][0]) for name in expected} == expected
    assert (found["visible"][1], found["violated"][1], found["missing"][1]) == (0, 0, 1)
    for name in ("visible", "violated", "missing", "residual", "color", "match", "missed"):
        assert found[name][2] == 0, "nothing in view"


def reference(rendered, observed, mask):
    """Match and missed by the definition: images (R, R, 3), mask (R, R)."""
    a, b = (x[mask] / (x[mask].sum(-1, keepdims=True) + DARK) for x in (rendered, observed))
    a, b = a - a.mean(0), b - b.mean(0)
    va, vb, vab = (np.mean(x * y, 0).sum() for x, y in ((a, a), (b, b), (a, b)))
    scale = np.sqrt((va + 3 * CHROMA_NOISE**2) * (vb + 3 * CHROMA_NOISE**2))
    return vab / scale, (min(va, np.sqrt(va * vb)) - vab) / scale


def test_print_sums_are_those_of_the_agreeing_pixels():
    rng = np.random.default_rng(0)
    n, size = 2, 40
    rgb = rng.random((2, n, size, size, 3), dtype=np.float32)
    rgb[1] = 0.6 * rgb[0] + 0.4 * rgb[1]
    depth = rng.choice([0.0, 1.0, 1.004, 1.2], (2, n, size, size)).astype(np.float32)
    diameters = np.array([0.1, 0.5], np.float32)
    difference = np.abs(depth[0] - depth[1])
    mask = (depth > 0).all(0) & (difference <= np.maximum(0.004, 0.05 * diameters)[:, None, None])
    xyz = np.stack([0 * depth, 0 * depth, depth], -1)
    partial = wp.empty((n, PRINTED_SUMS, size * int(kernels.LANES)), dtype=wp.float32, device="cpu")
    arrays = [wp.array(x, dtype=wp.float32, device="cpu") for x in (rgb[0], xyz[0], rgb[1], xyz[1], diameters)]
    wp.launch(
        kernels.agreement,
        (n, size, kernels.LANES),
        [*arrays, partial],
        device="cpu",
    )
    sums = partial.numpy().sum(2, dtype=np.float64)
    assert sums[:, 1].tolist() == mask.sum((1, 2)).tolist()
    # The kernel takes 1/3 from every channel, which no variance notices.
    expected = [reference(rgb[0, i], rgb[1, i], mask[i]) for i in range(n)]
    found = described(sums)
    np.testing.assert_allclose(np.stack([found["match"], found["missed"]], 1), expected, atol=1e-4)


def test_missed_is_only_what_the_model_has_and_the_image_could_show():
    def compared(a, b):
        sums = [*[len(a)] * 2, 0, 0, 0, 0, *a.sum(0), *b.sum(0), (a * a).sum(), (b * b).sum(), (a * b).sum()]
        found = described([sums])
        return np.array([found["match"][0], found["missed"][0]])

    rng = np.random.default_rng(1)
    print_, other, glare = rng.normal(0, 0.1, (3, 5000, 3))
    for image in (print_, print_ + 0.05, 0.5 * print_):
        match, missed = compared(print_, image)
        assert match > 0.8
        assert missed == pytest.approx(0, abs=1e-9)
    match, missed = compared(print_, other)
    assert abs(match) < 0.1
    assert missed > 0.8
    # A highlight is no sign against a pose, whatever it hides of a faint print.
    assert compared(0.2 * print_, 0.2 * print_ + 2 * glare)[1] < 0.05
    assert np.abs(compared(0.02 * print_, 0.02 * other)).max() < 0.01


def test_fitted_signs_are_what_the_features_mean():
    rng = np.random.default_rng(2)
    x = rng.random((400, len(FEATURES)))
    # Right where nothing agrees: an honest fit of these would reward disagreement.
    calibration = fit(x, x[:, FEATURES.index("match")] + 0.1 * rng.normal(size=400) < 0.5)
    assert calibration.coefficients[FEATURES.index("match")] == 0
    supports = [name for name, c in zip(FEATURES, calibration.coefficients, strict=True) if c > 0]
    assert set(supports) <= {"visible"}
