"""The real pose networks on generated video: a thing that leaves and returns."""

from __future__ import annotations

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
QUICK = {"pose.register_schedule": "32,8", "pose.register_iterations": 3, "pose.track_iterations": 1}


def pipeline_of(folder: Path, name: str, **settings) -> Pipeline:
    """The object of the demo alone, found by the masks of the video."""
    spec = next(s for s in load_objects(default_objects_file()) if s.name == name)
    objects = folder / "objects.yaml"
    objects.write_text(f"objects:\n  - {{name: {name}, mesh: {spec.mesh}}}\n")
    flat = {"device": "cpu", "objects_file": str(objects), "detector.source": "mask-topic", **QUICK, **settings}
    return Pipeline.build(from_flat(flat), background=False)


def geometry_of(name: str) -> ObjectGeometry:
    return ObjectGeometry.from_spec(next(s for s in load_objects(default_objects_file()) if s.name == name))


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
