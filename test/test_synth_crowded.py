"""The held-out set of packed scenes: what its objects and scenes hold, and that no training draws from its families."""

from __future__ import annotations

import numpy as np
import pytest

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.evaluate.schedule_compare import CompareSettings, cases, drift_figures
from rfdetr_foundationpose.replay.metrics import PoseError
from rfdetr_foundationpose.synth import crowded, families
from rfdetr_foundationpose.synth.crowded import CrowdedSampler, crowded_object
from rfdetr_foundationpose.synth.objects import MAX_DIAMETER, MIN_DIAMETER, vertex_diameter


def test_objects_are_solid_of_the_size_said_and_the_same_each_time():
    for seed in range(14):
        item = crowded_object(np.random.default_rng(seed))
        again = crowded_object(np.random.default_rng(seed))
        np.testing.assert_array_equal(item.mesh.vertices, again.mesh.vertices)
        assert item.mesh.volume > 0, "faces wind outward"
        assert MIN_DIAMETER * 0.99 < vertex_diameter(item.mesh.vertices) < MAX_DIAMETER * 1.01


def test_no_family_is_one_that_trainings_draw():
    assert not set(crowded.FAMILIES) & {family for family, _ in families.FAMILIES}


@pytest.fixture(scope="module")
def sampler() -> CrowdedSampler:
    models = [crowded_object(np.random.default_rng(seed), f"c{seed}") for seed in range(10)]
    return CrowdedSampler(models, "cpu", (120, 160), 7)


def test_the_object_in_the_middle_is_the_one_to_find_and_neighbours_touch_it(sampler):
    scenes, label = sampler._compose(16)
    assert (label[:, 0] == scenes.mesh[:, 0]).all()
    assert (label[:, 1:] == -1).all()
    neighbours = 0
    for mesh, T in zip(scenes.mesh, scenes.T_world_mesh, strict=True):
        points = [sampler._corners[i] @ T[m, :3, :3].T + T[m, :3, 3] for m, i in enumerate(mesh) if i >= 0]
        assert min(p[:, 2].min() for p in points) > -0.01, "nothing is below the table"
        for other, m in zip(points[1:], np.flatnonzero(mesh[1:] >= 0) + 1, strict=True):
            d = T[m, :2, 3] / np.linalg.norm(T[m, :2, 3])
            gap = (other[:, :2] @ d).min() - (points[0][:, :2] @ d).max()
            assert -1e-6 < gap < 0.31 * sampler.assets.radius[mesh[0]] + 1e-3
            neighbours += 1
    assert neighbours > 2 * 16


def test_depth_is_of_the_object_that_is_there(sampler):
    models = {m.name: m for m in sampler.assets.objects}
    for case in cases(sampler, 4, seed=0):
        model = models[case.object]
        center = case.T_cam_obj[:3, :3] @ model.center + case.T_cam_obj[:3, 3]
        measured = case.frame.depth[case.mask]
        assert np.abs(measured[measured > 0] - center[2]).min() < model.diameter / 2 + 0.02


def test_scenes_of_a_kind_that_is_none_are_refused():
    with pytest.raises(ConfigError, match="table or crowded"):
        CompareSettings(("full",), kind="heap")


def test_drift_counts_what_stays_within_both_bounds():
    errors = [PoseError(mm, deg, mm, mm, 0, 0) for mm, deg in ((1.0, 1.0), (1.0, 3.0), (3.0, 1.0), (0.5, 0.5))]
    figures = drift_figures(errors)
    assert figures["within"] == 0.5
    assert figures["translation_error_mm"]["max"] == 3.0
