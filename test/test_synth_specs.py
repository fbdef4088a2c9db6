"""Random objects as mesh files, and what calibration makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from rfdetr_foundationpose.config import from_flat
from rfdetr_foundationpose.evaluate.calibrate import STARTS, collect, reliability, starts
from rfdetr_foundationpose.pose.confidence import FEATURES
from rfdetr_foundationpose.pose.mesh import load_object
from rfdetr_foundationpose.replay.metrics import ObjectGeometry, pose_error
from rfdetr_foundationpose.synth.objects import random_object
from rfdetr_foundationpose.synth.scene import as_model
from rfdetr_foundationpose.synth.specs import random_specs, specs_or_random


def test_files_hold_the_objects_of_their_seeds(tmp_path):
    seeds = range(30, 40)
    specs = random_specs(tmp_path, seeds)
    assert [s.name for s in specs] == [f"object_{seed}" for seed in seeds]
    for seed, spec in zip(seeds, specs, strict=True):
        item = random_object(np.random.default_rng(seed))
        assert (spec.discrete, spec.continuous) == (item.discrete, item.continuous)
        expected, loaded = as_model(item), load_object(spec)
        assert loaded.diameter == pytest.approx(expected.diameter, rel=1e-5)
        np.testing.assert_allclose(loaded.center, expected.center, atol=1e-6)
        assert loaded.color_source == expected.color_source
    (alone,) = random_specs(tmp_path, [30])
    assert alone == specs[0]


def test_starts_go_from_near_to_hopeless(tmp_path):
    (spec,) = random_specs(tmp_path, [4])
    item = load_object(spec)
    geometry = ObjectGeometry.from_model(item, spec)
    T = np.eye(4)
    T[:3, 3] = (0.05, -0.02, 0.8)
    true = item.from_centered(T)
    rng = np.random.default_rng(0)
    rows = np.array(
        [
            [pose_error(item.from_centered(s), true, geometry).translation_mm / 1e3 / item.diameter for s in moved]
            for moved in (starts(T, item, rng) for _ in range(40))
        ]
    )
    assert rows.shape == (40, STARTS)
    near, nearer, fair, fairer, poor, turned, beside, behind = np.median(rows, axis=0)
    assert max(near, nearer) < min(fair, fairer) < max(fair, fairer) < poor < beside < 1.6
    assert max(near, nearer) < 0.05
    assert turned < 0.06
    assert behind > 0.6


def test_reliability_leaves_out_empty_bins_and_counts_all():
    confidence = np.array([0.02, 0.04, 0.55, 0.59, 1.0])
    right = np.array([False, True, True, True, False])
    rows = reliability(confidence, right)
    assert [r["count"] for r in rows] == [2, 2, 1]
    assert [r["right"] for r in rows] == [0.5, 1.0, 0.0]
    assert rows[1]["confidence"] == pytest.approx(0.57)


def test_samples_of_calibration_are_of_held_out_scenes(weights):
    config = from_flat({"device": "cpu", "pose.weights": str(weights), "pose.track_iterations": 1})
    done = []
    with specs_or_random(None, range(50_000, 50_002)) as specs:
        samples = collect(config, specs, 2, 5, lambda i, total: done.append((i, total)))
    assert done == [(1, 2), (2, 2)]
    assert samples.features.shape == (2 * STARTS * 3, len(FEATURES))
    assert np.bincount(samples.scene).tolist() == [STARTS * 3] * 2
    assert (samples.adds <= samples.add).all()
    assert (samples.right == (samples.add < 0.1)).all()
    assert not (samples.right & samples.flipped).any()
    assert ((samples.confidence >= 0) & (samples.confidence <= 1)).all()
