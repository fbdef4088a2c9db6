"""Generated videos: speed limits hold, frames repeat, ground truth is consistent, recordings and BOP round trips."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.interrupts import Watch
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.coco_masks import within
from rfdetr_foundationpose.replay.recording import read_recording
from rfdetr_foundationpose.resources import default_objects_file, share_dir
from rfdetr_foundationpose.synth.bop import write_models, write_scene
from rfdetr_foundationpose.synth.coco import write_coco
from rfdetr_foundationpose.synth.demo_objects import demo_objects, write_demo_objects
from rfdetr_foundationpose.synth.generate import generate_frames, generate_recording, load_scene_objects
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler
from rfdetr_foundationpose.synth.video import SceneVideo, VideoSettings

SETTINGS = VideoSettings(frames=6, size=(72, 96), targets=("mug", "cereal_box", "mug"), distractors=2, seed=4)


@pytest.fixture(scope="module")
def video() -> SceneVideo:
    return SceneVideo(load_scene_objects(), SETTINGS)


@pytest.mark.parametrize(("speed", "turn", "seed"), [(0.30, 60.0, 0), (0.05, 200.0, 1), (1.0, 10.0, 2)])
def test_motion_keeps_and_reaches_the_limits(speed: float, turn: float, seed: int) -> None:
    settings = VideoSettings(frames=3, size=(48, 64), seed=seed, max_speed=speed, max_turn=turn, distractors=0)
    video = SceneVideo(demo_objects()[:3], settings)
    speeds, turns = video.speeds(np.arange(0, 30, 1 / 100))
    assert speeds.shape == turns.shape == (3, 2999)
    assert speeds.max() <= speed * 1.02 and turns.max() <= np.deg2rad(turn) * 1.02
    long_speeds, long_turns = video.speeds(np.arange(0, 60, 1 / 60))
    assert max(long_speeds.max() / speed, long_turns.max() / np.deg2rad(turn)) > 0.8
    # Only the first target moves by itself; the camera moves all of them.
    world = video._object_poses(np.arange(0, 10, 0.1))
    assert np.ptp(world[:, 0, :3, 3], axis=0).max() > 0.01
    assert np.ptp(world[:, 1:], axis=0).max() == 0


def test_frames_are_functions_of_the_seed_and_index(video: SceneVideo) -> None:
    again = SceneVideo(load_scene_objects(), SETTINGS)
    late, truth = video.frame(5)
    early, _ = video.frame(0)
    repeated, truth_again = again.frame(5)
    assert np.array_equal(late.rgb, repeated.rgb) and np.array_equal(late.depth, repeated.depth)
    assert np.array_equal(truth.instances[0].T_cam_obj, truth_again.instances[0].T_cam_obj)
    assert not np.array_equal(early.rgb, late.rgb)
    assert late.stamp_ns - early.stamp_ns == round(5e9 / 30)
    with pytest.raises(IndexError, match=r"outside 0\.\.5"):
        video.frame(6)


def test_instances_masks_depth_and_poses_agree(video: SceneVideo) -> None:
    frame, truth = video.frame(2)
    assert [i.name for i in truth.instances] == ["mug", "cereal_box", "mug_1"]
    assert [i.object for i in truth.instances] == ["mug", "cereal_box", "mug"]
    assert not (frame.masks["mug"] & frame.masks["mug_1"]).any()
    meshes = {o.name: o.mesh for o in demo_objects()}
    assert truth.T_world_cam is not None
    for instance in truth.instances:
        mask = frame.masks[instance.name]
        assert mask.any() and instance.visibility is not None and instance.visibility > 0.2
        v, u = np.nonzero(mask & (frame.depth > 0))
        z = frame.depth[v, u] * frame.depth_scale
        k = frame.camera
        points = np.stack([(u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z], axis=-1)
        T = np.linalg.inv(instance.T_cam_obj)
        local = (points @ T[:3, :3].T + T[:3, 3])[:: len(points) // 40 + 1]
        surface, _ = trimesh.sample.sample_surface(meshes[instance.object], 40000, seed=0)
        assert np.median(cKDTree(surface).query(local)[0]) < 0.004  # depth noise and sampling: a few millimetres
        corners = trimesh.bounds.corners(meshes[instance.object].bounds)
        world = truth.T_world_cam @ instance.T_cam_obj
        assert (corners @ world[:3, :3].T + world[:3, 3])[:, 2].max() > 0  # above the table


def test_a_knock_moves_the_image_and_a_shutter_blurs_it() -> None:
    still = dataclasses.replace(SETTINGS, frames=45, size=(96, 128), jolt=8.0)
    sharp, blurred = (SceneVideo(load_scene_objects(), dataclasses.replace(still, shutter=s)) for s in (0.0, 1 / 30))
    gradients = {}
    for name, video in (("sharp", sharp), ("blurred", blurred)):
        for index in (29, 33):  # before the knock of 1.0 s, and in it
            gray = cv2.cvtColor(video.frame(index)[0].rgb, cv2.COLOR_RGB2GRAY).astype(float)
            gradients[name, index] = np.abs(np.diff(gray, axis=1)).mean()
    assert gradients["blurred", 29] > 0.8 * gradients["sharp", 29]
    assert gradients["blurred", 33] < 0.7 * gradients["sharp", 33]
    # Depth and ground truth are of the frame's own instant, with and without a shutter.
    (a, truth), (b, same) = sharp.frame(33), blurred.frame(33)
    assert np.array_equal(a.depth, b.depth) and np.array_equal(truth.T_world_cam, same.T_world_cam)
    rest = SceneVideo(load_scene_objects(), dataclasses.replace(still, jolt=0.0))
    turned = [
        np.degrees(
            Rotation.from_matrix(
                rest.frame(i)[1].T_world_cam[:3, :3].T @ sharp.frame(i)[1].T_world_cam[:3, :3]
            ).magnitude()
        )
        for i in (29, 31, 33, 37)
    ]
    assert turned[0] == turned[3] == 0 and turned[1] == pytest.approx(8 * np.sin(2 * np.pi / 6), abs=0.01)


def test_several_processes_give_the_same_frames_in_order() -> None:
    from dataclasses import replace

    settings = replace(SETTINGS, frames=24, size=(24, 32), distractors=0, targets=("mug",))
    models = load_scene_objects(names=("mug",))
    alone = list(generate_frames(models, settings, processes=1))
    shared = list(generate_frames(models, settings, processes=2))
    assert [f.stamp_ns for f, _ in alone] == [f.stamp_ns for f, _ in shared]
    assert all(np.array_equal(a.rgb, b.rgb) for (a, _), (b, _) in zip(alone, shared, strict=True))


def test_a_recording_holds_the_video(tmp_path: Path, video: SceneVideo) -> None:
    done = []
    path = tmp_path / "bag"
    watch = Watch(lambda i, n: done.append((i, n)))
    assert generate_recording(path, load_scene_objects(), SETTINGS, watch=watch) == 6
    assert done == [(i, 6) for i in range(1, 7)]
    frames = list(read_recording(path))
    assert len(frames) == 6
    for i, (frame, truth) in enumerate(frames):
        expected, expected_truth = video.frame(i)
        assert np.array_equal(frame.rgb, expected.rgb) and np.array_equal(frame.depth, expected.depth)
        named = {t.name: t for t in expected_truth.instances}
        assert set(named) == {t.name for t in truth.instances}
        for t in truth.instances:
            assert t.object == named[t.name].object
            assert np.allclose(t.T_cam_obj, named[t.name].T_cam_obj, atol=1e-9)


def test_bop_round_trip(tmp_path: Path, video: SceneVideo) -> None:
    models = load_scene_objects(names=("mug", "cereal_box"))
    ids = write_models(tmp_path, models)
    assert ids == {"cereal_box": 1, "mug": 2}
    written = [video.frame(i) for i in range(3)]
    assert write_scene(tmp_path / "test" / "000000", written, ids) == 3
    read = list(BopDataset(tmp_path))
    assert [(scene, image) for scene, image, _, _ in read] == [("000000", i) for i in range(3)]
    cameras = json.loads((tmp_path / "test" / "000000" / "scene_camera.json").read_text())
    for (a, truth), (_, image, b, instances) in zip(written, read, strict=True):
        assert np.array_equal(a.rgb, b.rgb) and np.array_equal(a.depth, b.depth)
        assert b.depth_scale == pytest.approx(0.001) and a.camera == b.camera
        assert [f"obj_{ids[i.object]:06d}" for i in truth.instances] == [j.object for j in instances]
        for i, j in zip(truth.instances, instances, strict=True):
            assert np.allclose(i.T_cam_obj, j.T_cam_obj, atol=1e-9) and i.visibility == pytest.approx(j.visibility)
            assert np.array_equal(a.masks[i.name], j.mask)
        world = np.eye(4)
        world[:3, :3] = np.reshape(cameras[str(image)]["cam_R_w2c"], (3, 3))
        world[:3, 3] = np.divide(cameras[str(image)]["cam_t_w2c"], 1000)
        assert truth.T_world_cam is not None
        assert np.allclose(truth.T_world_cam @ world, np.eye(4), atol=1e-9)
    info = json.loads((tmp_path / "models" / "models_info.json").read_text())
    assert info["1"]["diameter"] == pytest.approx(1000 * np.linalg.norm([0.2, 0.06, 0.28]), rel=1e-4)
    mesh = trimesh.load(tmp_path / "models" / "obj_000001.ply", process=False)
    assert np.allclose(mesh.extents, [200, 60, 280], atol=1e-3)
    assert mesh.visual.kind == "texture" and mesh.visual.material.image.size == (512, 512)


def test_bop_models_keep_their_symmetries(tmp_path: Path) -> None:
    from rfdetr_foundationpose.objects import DiscreteSymmetry
    from rfdetr_foundationpose.synth.objects import SynthObject
    from rfdetr_foundationpose.synth.scene import as_model

    box = trimesh.creation.box((0.1, 0.2, 0.3))
    box.apply_translation((0.5, 0, 0))
    symmetric = SynthObject("block", box, (DiscreteSymmetry((0, 0, 1), 2, (0.5, 0, 0)),))
    write_models(tmp_path, [as_model(symmetric)])
    info = json.loads((tmp_path / "models" / "models_info.json").read_text())["1"]
    (T,) = (np.reshape(s, (4, 4)) for s in info["symmetries_discrete"])
    corner = np.array([550, 100, 150, 1.0])
    assert np.allclose(T @ corner, [450, -100, 150, 1])
    assert np.allclose(T[:3, :3], Rotation.from_euler("z", 180, degrees=True).as_matrix(), atol=1e-9)


def test_coco_layout(tmp_path: Path) -> None:
    sampler = SceneSampler(demo_objects(), "cpu", (96, 128), 0, SceneContent(3, 3))
    write_coco(tmp_path, sampler, {"train": 5, "valid": 2}, batch=3)
    content = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["objects", *sampler.names]
    assert len(content["images"]) == 5 and len(content["annotations"]) > 5
    assert len(json.loads((tmp_path / "valid" / "_annotations.coco.json").read_text())["images"]) == 2
    for image in content["images"]:
        pixels = cv2.imread(str(tmp_path / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (96, 128, 3)
    # pycocotools takes the annotation 0 for none (findings/pycocotools-annotation-zero-is-no-match.sh).
    assert [a["id"] for a in content["annotations"]] == [*range(1, len(content["annotations"]) + 1)]
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        assert 1 <= a["category_id"] <= 5 and 0 <= x < x + w <= 128 and 0 <= y < y + h <= 96
        filled = within(a["segmentation"], (96, 128))
        assert cv2.boundingRect(filled.astype(np.uint8)) == (x, y, w, h) and a["area"] <= filled.sum()


def test_shipped_meshes_are_what_the_code_draws(tmp_path: Path) -> None:
    shipped = {s.name: s.mesh for s in load_objects(default_objects_file())}
    fresh = {p.stem: p for p in write_demo_objects(tmp_path / "meshes", tmp_path / "objects.yaml")}
    assert set(shipped) == set(fresh) == {s.name for s in load_objects(tmp_path / "objects.yaml")}
    for name, path in fresh.items():
        a, b = trimesh.load(shipped[name], force="mesh"), trimesh.load(path, force="mesh")
        assert np.allclose(a.vertices, b.vertices, atol=1e-7) and np.array_equal(a.faces, b.faces)
        assert np.array_equal(a.visual.material.baseColorTexture, b.visual.material.baseColorTexture)
        # A factor below white would darken the texture wherever glTF is followed, here too.
        assert np.array_equal(a.visual.material.baseColorFactor, (255, 255, 255, 255))
    assert sum(p.stat().st_size for p in shipped.values()) < 1_000_000
    assert (share_dir() / "config" / "objects.yaml").is_file()


def test_bad_settings_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="'teapot' is none of the objects: cereal_box"):
        SceneVideo(demo_objects()[:1], VideoSettings(frames=1, targets=("teapot",)))
    with pytest.raises(ValueError, match="object 'teapot' is not in the objects file"):
        load_scene_objects(names=("teapot",))
    with pytest.raises(ValueError, match=r"rate=0 must be positive"):
        VideoSettings(rate=0)
    with pytest.raises(ValueError, match="size=8x8 must be at least"):
        VideoSettings(size=(8, 8))
    with pytest.raises(ValueError, match=r"shutter=0.05 must be in \[0, 0.0333\]"):
        VideoSettings(shutter=0.05)
