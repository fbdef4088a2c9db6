"""The real pose networks on generated video: twenty things of one kind at once, and a thing that leaves and returns."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from rfdetr_foundationpose.config import from_flat
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.pipeline import Pipeline
from rfdetr_foundationpose.replay.metrics import ADDS_THRESHOLD, ObjectGeometry, pose_error
from rfdetr_foundationpose.resources import default_objects_file
from rfdetr_foundationpose.synth.generate import load_scene_objects
from rfdetr_foundationpose.synth.video import SceneVideo, VideoSettings
from rfdetr_foundationpose.types import TrackState

pytestmark = pytest.mark.timeout(900)
QUICK = {"pose.register_schedule": "64,16,8", "pose.register_iterations": 3, "pose.track_iterations": 1}


def pipeline_of(folder: Path, name: str, instances: int = 1, **settings) -> Pipeline:
    """The object of the demo alone, found by the masks of the video."""
    spec = next(s for s in load_objects(default_objects_file()) if s.name == name)
    objects = folder / "objects.yaml"
    objects.write_text(f"objects:\n  - {{name: {name}, mesh: {spec.mesh}, max_instances: {instances}}}\n")
    flat = {"device": "cpu", "objects_file": str(objects), "detector.source": "mask-topic", **QUICK, **settings}
    return Pipeline.build(from_flat(flat), background=False)


def geometry_of(name: str) -> ObjectGeometry:
    return ObjectGeometry.from_spec(next(s for s in load_objects(default_objects_file()) if s.name == name))


@pytest.mark.slow
def test_twenty_of_one_kind_get_one_id_each(tmp_path):
    """One registration a frame; each id stays with one can. About a second a frame on two cores."""
    name, count = "soup_can", 20
    settings = VideoSettings(
        frames=30, rate=30.0, seed=2, targets=(name,) * count, distractors=0, max_speed=0.02, max_turn=5.0,
        min_visibility=0.1, distance=1.1,
    )  # fmt: skip
    video = SceneVideo(load_scene_objects(None, [name]), settings)
    geometry = geometry_of(name)
    pipeline = pipeline_of(tmp_path, name, count)
    followed: dict[str, set[str]] = defaultdict(set)
    right: Counter[bool] = Counter()
    try:
        for index in range(settings.frames):
            frame, truth = video.frame(index)
            result = pipeline.process(frame)
            names = [p.name for p in result.poses]
            assert len(names) == len(set(names)) <= count
            for pose in result.poses:
                if pose.state is not TrackState.TRACKING:
                    continue
                errors = {t.name: pose_error(pose.T_cam_obj, t.T_cam_obj, geometry) for t in truth.instances}
                nearest = min(errors, key=lambda n: errors[n].translation_mm)
                followed[pose.name].add(nearest)
                right[errors[nearest].adds_ratio < ADDS_THRESHOLD] += 1
        seen = [t.name for t in truth.instances if (t.visibility or 0.0) > 0.3]
    finally:
        pipeline.close()
    print(f"{len(followed)} ids, {len(seen)} cans more than 0.3 visible, right {right[True]} of {right.total()}")
    assert all(len(instances) == 1 for instances in followed.values()), followed
    assert len(set.union(*followed.values())) == len(followed), "two ids on one can"
    assert len(followed) >= 0.9 * len(seen)
    assert right[True] >= 0.9 * right.total()


@pytest.mark.slow
def test_a_thing_that_leaves_is_lost_once_and_found_again_under_its_name(tmp_path):
    name = "mug"
    kinds = load_scene_objects(None, ["mug", "drill"])
    common = {"frames": 40, "rate": 10.0, "seed": 5, "distractors": 2, "max_speed": 0.05, "max_turn": 10.0}
    with_mug = SceneVideo(kinds, VideoSettings(targets=("mug",), **common))
    without = SceneVideo(kinds, VideoSettings(targets=("drill",), **common))
    geometry = geometry_of(name)
    pipeline = pipeline_of(tmp_path, name, **{"pose.lost_seconds": 0.5})
    states: list[list[str]] = []
    try:
        for index in range(24):
            away = 6 <= index < 18
            frame, truth = (without if away else with_mug).frame(index)
            result = pipeline.process(frame)
            states.append([p.state.name for p in result.poses])
            for pose in result.poses:
                assert pose.name == name
                if pose.state is TrackState.TRACKING:
                    assert not away or index < 9, f"frame {index}: a pose of what is not there"
                    if not away:
                        (there,) = (t for t in truth.instances if t.object == name)
                        assert pose_error(pose.T_cam_obj, there.T_cam_obj, geometry).adds_ratio < ADDS_THRESHOLD
        counters = pipeline.status().counters
    finally:
        pipeline.close()
    print(states, counters)
    assert states[5] == ["TRACKING"] and states[-1] == ["TRACKING"]
    assert [s for frame in states for s in frame].count("LOST") == 1
    assert counters["lost"] == counters["registered"] == counters["registered_again"] == 1
    assert np.all([not s for s in states[14:18]]), "nothing is published of what is gone"
