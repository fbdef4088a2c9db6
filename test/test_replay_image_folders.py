"""Folders of images as recordings: what data sets and capture programs leave on disk."""

from __future__ import annotations

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
import scipy.io

from rfdetr_foundationpose.errors import InputError
from rfdetr_foundationpose.frame_files import read_depth
from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from support.bags import CAMERA_INFO, plain, write_rosbag2
from support.image_folders import MILLIMETRES, K, write

FOUR = {"fx": 60, "fy": 61, "cx": 31.5, "cy": 23.5}
BOP = {"cam_K": [60, 0, 31.5, 0, 61, 23.5, 0, 0, 1], "depth_scale": 0.1}


# Colour, depth, what depth is multiplied with, camera file.
SETS = {
    "FoundationPose": ("rgb/{:07d}.png", "depth/{:07d}.png", 1, ("cam_K.txt", K)),
    "BOP": ("rgb/{:06d}.jpg", "depth/{:06d}.png", 10, ("scene_camera.json", json.dumps(dict.fromkeys("012", BOP)))),
    "Open3D": (
        "color/{:06d}.jpg",
        "depth/{:06d}.png",
        1,
        (
            "intrinsic.json",
            json.dumps({"width": 64, "height": 48, "intrinsic_matrix": [60, 0, 0, 0, 61, 0, 31.5, 23.5, 1]}),
        ),
    ),
    "ScanNet": (
        "color/{}.jpg",
        "depth/{}.png",
        1,
        ("intrinsic/intrinsic_color.txt", "60 0 31.5 0 0 61 23.5 0 0 0 1 0 0 0 0 1"),
    ),
    "7-Scenes": ("frame-{:06d}.color.png", "frame-{:06d}.depth.png", 1, ("camera.txt", K)),
    "one folder": ("{}_rgb.png", "{}_depth.png", 1, ("K.txt", K)),
    "named by depth alone": ("{:04d}.jpg", "{:04d}_depth.png", 1, ("K.txt", K)),
    "DexYCB": (
        "color_{:06d}.jpg",
        "aligned_depth_to_color_{:06d}.png",
        1,
        (
            "calibration/840412060917_640x480.yml",
            "color: {fx: 60, fy: 61, ppx: 31.5, ppy: 23.5}\ndepth: {fx: 50, fy: 50, ppx: 32, ppy: 24}\n",
        ),
    ),
    "SIXD": (
        "rgb/{:04d}.png",
        "depth/{:04d}.png",
        1,
        ("info.yml", "".join(f"{i}:\n  cam_K: {BOP['cam_K']}\n  depth_scale: 1.0\n" for i in range(3))),
    ),
    "NICE-SLAM's Replica": (
        "results/frame{:06d}.jpg",
        "results/depth{:06d}.png",
        5,
        ("cam_params.json", json.dumps({"camera": {"w": 64, "h": 48, **FOUR, "scale": 5000}})),
    ),
    "BundleFusion": (
        "frame-{:06d}.color.jpg",
        "frame-{:06d}.depth.png",
        1,
        (
            "info.txt",
            "m_colorWidth = 64\nm_colorHeight = 48\nm_depthShift = 1000\n"
            "m_calibrationColorIntrinsic = 60 0 31.5 0 0 61 23.5 0 0 0 1 0 0 0 0 1\nm_sensorName = x\n",
        ),
    ),
    "Isaac Sim": (
        "rgb_{:04d}.png",
        "distance_to_image_plane_{:04d}.npy",
        1,
        (
            "camera_params_{:04d}.json",
            json.dumps(
                {
                    "cameraProjection": [60 / 32, 0, 0, 0, 0, 61 / 24, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0],
                    "renderProductResolution": [64, 48],
                }
            ),
        ),
    ),
    "HOPE-Video": (
        "{:04d}_rgb.jpg",
        "{:04d}_depth.png",
        1,
        (
            "{:04d}.json",
            json.dumps({"camera": {"intrinsics": [[60, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]}, "objects": []}),
        ),
    ),
    "float depth": ("images/{}.png", "depth/{}.tiff", 1, ("K.txt", K)),
    "arrays": ("rgb_images/img_{}.png", "depth_npy/d_{}.npy", 1, ("K.txt", K)),
}


@pytest.mark.parametrize("name", SETS)
def test_folders_of_data_sets_are_recordings(tmp_path, name):
    rgb, depth, factor, camera = SETS[name]
    tape = Recording(write(tmp_path, rgb, depth, factor=factor, camera=camera))
    tape.check()
    frames = [frame for frame, _ in tape]
    assert len(tape) == len(frames) == 3 and not tape.invalid and not tape.timed
    for i, frame in enumerate(frames):
        red = (frame.rgb[..., 0] > 120) & (frame.rgb[..., 2] < 90)
        assert red[:, : 4 + i].all() and not red[:, 7 + i :].any()
        np.testing.assert_allclose(frame.depth * frame.depth_scale, (MILLIMETRES + i / factor) / 1000, atol=1e-6)
        assert (frame.camera.fx, frame.camera.fy, frame.camera.cx, frame.camera.cy) == (60, 61, 31.5, 23.5)
    assert [round((b.stamp_ns - a.stamp_ns) / 1e6) for a, b in pairwise(frames)] == [33, 33]


def test_tum_has_times_and_a_unit_of_its_own(tmp_path):
    write(
        tmp_path, "rgb/{}.png", "other/{}.png", numbers=["1305031102.175304", "1305031102.211214", "1305031102.243211"]
    )
    times = ["1305031102.160407", "1305031102.226738", "1305031102.262886"]
    write(tmp_path, "other/{}.png", "depth/{}.png", factor=5, numbers=times)
    for name in ("rgb.txt", "depth.txt"):
        (tmp_path / name).write_text("# timestamp filename\n")
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert tape.timed
    assert [f.stamp_ns for f in frames] == [1305031102175304000, 1305031102211214000, 1305031102243211000]
    np.testing.assert_allclose(frames[0].depth * frames[0].depth_scale, MILLIMETRES / 1000, atol=1e-6)
    assert any("units of 0.2 mm" in problem for problem in tape.problems)


def test_each_image_of_bop_has_its_own_camera(tmp_path):
    cameras = {str(i): {**BOP, "cam_K": [60 + i, 0, 31.5, 0, 61, 23.5, 0, 0, 1]} for i in range(3)}
    write(tmp_path, "rgb/{:06d}.png", "depth/{:06d}.png", camera=("scene_camera.json", json.dumps(cameras)))
    (tmp_path / "mask").mkdir()
    cv2.imwrite(str(tmp_path / "mask" / "000000_000000.png"), np.zeros((48, 64), np.uint8))
    (tmp_path / "scene_gt.json").write_text("{}")
    tape = Recording(tmp_path)
    assert [frame.camera.fx for frame, _ in tape] == [60, 61, 62]
    assert any("scene of a BOP data set; evaluate bop" in problem for problem in tape.problems)


def test_frames_of_a_nerf_data_set_may_have_their_own_camera(tmp_path):
    frames = [
        {
            "file_path": f"./images/frame_{i:05d}.png",
            "fl_x": 60 + i,
            "fl_y": 61,
            "cx": 31.5,
            "cy": 23.5,
            "w": 64,
            "h": 48,
        }
        for i in (2, 0, 1)
    ]
    text = json.dumps({"camera_model": "OPENCV", "frames": frames})
    write(tmp_path, "images/frame_{:05d}.png", "depth/frame_{:05d}.png", camera=("transforms.json", text))
    assert [frame.camera.fx for frame, _ in Recording(tmp_path)] == [60, 61, 62]


def test_a_lens_that_distorts_is_said_and_undistorted(tmp_path):
    text = "fx: 60\nfy: 61\ncx: 31.5\ncy: 23.5\nd: [0.2, 0, 0, 0, 0]\ndistortion_model: plumb_bob\n"
    write(tmp_path, "rgb/{}.png", "depth/{}.png", camera=("camera.yaml", text))
    tape = Recording(tmp_path)
    plain = next(iter(tape))[0]
    assert any("its lens distorts" in problem for problem in tape.problems)
    straight = next(iter(Recording(tmp_path, rectify=True)))[0]
    assert (straight.rgb != plain.rgb).any() and straight.camera == plain.camera


def test_what_has_no_partner_or_is_damaged_is_counted(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.png", count=6)
    (tmp_path / "depth" / "1.png").unlink()
    (tmp_path / "rgb" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    cv2.imwrite(str(tmp_path / "depth" / "4.png"), np.zeros((48, 64), np.uint8))
    tape = Recording(tmp_path)
    assert len([*tape]) == 3
    assert (
        tape.tally.published == 6 and tape.tally.dropped["unmatched"] == 1 and tape.tally.dropped["bad_compressed"] >= 1
    )


def test_the_same_images_are_the_same_recording(tmp_path):
    first = Recording(write(tmp_path / "a", "rgb/{}.png", "depth/{}.png"))
    second = Recording(write(tmp_path / "b", "rgb/{}.png", "depth/{}.png"))
    assert first.identity() == second.identity()
    assert "colour /rgb/image/compressed, depth /depth/image/compressed" in first.reason


@pytest.mark.parametrize(
    "rgb, depth, camera, words",
    [
        (
            "rgb/{}.png",
            "depth/{}.png",
            None,
            "no file with the camera's intrinsics: write its 3x3 matrix into .*cam_K.txt",
        ),
        ("rgb/{}.png", "depth/{}.png", ("cam_K.txt", "1 2 3"), "cam_K.txt cannot be read .3 numbers."),
        ("rgb/a.png", "depth/b.png", ("cam_K.txt", K), "a.png has no number"),
        ("rgb/{}.png", "rgb2/{}.png", ("cam_K.txt", K), r"nor images \(rgb/, depth/, cam_K.txt\)"),
        (
            "rgb/{}.png",
            "depth/{}.png",
            ("camera.json", '{"fx": 60, "fy": 61, "cx": 31.5, "cy": 20, "width": 128, "height": 80}'),
            "is of 128x80 pixels, the images have 64x48",
        ),
    ],
)
def test_folders_that_are_no_recording_say_what_is_missing(tmp_path, rgb, depth, camera, words):
    with pytest.raises(RecordingError, match=words):
        Recording(write(tmp_path, rgb, depth, camera=camera))


def test_one_of_several_cameras_must_be_named(tmp_path):
    for name in ("left", "right"):
        write(tmp_path / name, "rgb/{}.png", "depth/{}.png")
    with pytest.raises(
        RecordingError, match=r"holds 2 folders of colour and depth images: name one of them .left, right."
    ):
        Recording(tmp_path)
    assert len(Recording(tmp_path / "left")) == 3
    with pytest.raises(RecordingError, match="it is one image; name the folder"):
        Recording(tmp_path / "left" / "rgb" / "0.png")


def test_images_of_two_cameras_in_one_folder_are_refused(tmp_path):
    write(tmp_path, "rgb/left_{}.png", "depth/{}.png")
    write(tmp_path, "rgb/right_{}.png", "depth/{}.png")
    with pytest.raises(RecordingError, match="left_0.png and right_0.png have the same number"):
        Recording(tmp_path)


def test_floating_millimetres_are_taken_for_what_they_are(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    for i in range(3):
        (tmp_path / "depth" / f"{i}.png").unlink()
        np.save(tmp_path / "depth" / f"{i}.npy", (MILLIMETRES + i).astype(np.float32))
    tape = Recording(tmp_path)
    frame = next(iter(tape))[0]
    np.testing.assert_allclose(frame.depth * frame.depth_scale, MILLIMETRES / 1000, atol=1e-6)
    assert any("taken for millimetres" in problem for problem in tape.problems)


@pytest.mark.parametrize(
    "factor, unit, said", [(1, 0.001, False), (50, 0.001, True), (50, 0.001 / 50, False), (1, 1e-5, True)]
)
def test_depth_of_another_unit_is_said_once(tmp_path, factor, unit, said):
    tape = Recording(write(tmp_path, "rgb/{}.png", "depth/{}.png", factor=factor), depth_unit=unit)
    assert len([*tape]) == 3
    found = [problem for problem in tape.problems if "set input.depth_unit to metres per unit" in problem]
    assert len(found) == said


def test_a_file_of_intrinsics_takes_the_place_of_a_calibration(tmp_path):
    """For recordings without camera_info, and for those whose driver does not know its lens."""
    (tmp_path / "cam_K.txt").write_text(K)
    without = write_rosbag2(tmp_path / "a", [s for s in plain(3) if s.kind != CAMERA_INFO])
    with pytest.raises(RecordingError, match="or a file of the camera's intrinsics .--camera-info cam_K.txt"):
        Recording(without)
    for path in (without, write_rosbag2(tmp_path / "b", plain(3))):
        tape = Recording(path, camera_info=str(tmp_path / "cam_K.txt"))
        assert [frame.camera.fy for frame, _ in tape] == [61] * 3 and "calibration " + str(tmp_path) in tape.reason
        assert tape.identity()["topics"][2] == "cam_K.txt"
    folder = write(tmp_path / "c", "rgb/{}.png", "depth/{}.png", camera=None)
    assert [frame.camera.fy for frame, _ in Recording(folder, camera_info=str(tmp_path / "cam_K.txt"))] == [61] * 3


def test_a_camera_file_above_the_folder_is_named(tmp_path):
    write(tmp_path / "room0" / "results", "frame{:06d}.jpg", "depth{:06d}.png", camera=None)
    (tmp_path / "cam_params.json").write_text(json.dumps({"camera": {"w": 64, "h": 48, **FOUR}}))
    for folder in (tmp_path / "room0", tmp_path / "room0" / "results"):
        tape = Recording(folder)
        assert [frame.camera.fy for frame, _ in tape] == [61] * 3
        assert any(f"the camera is that of {tmp_path / 'cam_params.json'}" in problem for problem in tape.problems)


def test_a_file_of_another_view_makes_no_frame_and_says_why(tmp_path):
    (tmp_path / "a.json").write_text('{"fx": 60, "fy": 61, "cx": 31.5, "cy": 20, "width": 128, "height": 80}')
    tape = Recording(write_rosbag2(tmp_path / "a", plain(3)), camera_info=str(tmp_path / "a.json"))
    assert not [*tape] and tape.tally.dropped["bad_camera_info"] == 3
    assert "a.json is of 128x80 pixels, the images have 64x48" in tape.tally.sentences()[0]
    (tmp_path / "b.txt").write_text("hello")
    with pytest.raises(RecordingError, match="b.txt holds no intrinsics"):
        Recording(tmp_path / "a", camera_info=str(tmp_path / "b.txt"))


def test_a_camera_file_with_a_serial_number_is_that_of_all_images(tmp_path):
    write(tmp_path, "rgb/{:06d}.png", "depth/{:06d}.png", camera=("camera_840412060917.json", json.dumps(FOUR)))
    assert [frame.camera.fy for frame, _ in Recording(tmp_path)] == [61] * 3


def test_cameras_of_other_images_are_refused(tmp_path):
    text = json.dumps(dict.fromkeys(("10", "11", "12"), BOP))
    with pytest.raises(
        RecordingError, match=r"scene_camera.json has cameras of the images 10, 11, 12, .* as 000000.png"
    ):
        Recording(write(tmp_path / "a", "rgb/{:06d}.png", "depth/{:06d}.png", camera=("scene_camera.json", text)))
    for i in range(10, 13):
        write(tmp_path / "b", "rgb/{}.png", "depth/{}.png", camera=(f"cameras/{i}.json", json.dumps(FOUR)))
    with pytest.raises(RecordingError, match="no file with the camera's intrinsics"):
        Recording(tmp_path / "b")


def test_an_image_in_two_files_is_refused(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.npy")
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    with pytest.raises(RecordingError, match=r"0.npy and 0.png are the same image twice; keep the files of one suffix"):
        Recording(tmp_path)


def test_ycb_video_names_camera_and_unit_in_a_file_of_each_image(tmp_path):
    write(tmp_path, "{:06d}-color.png", "{:06d}-depth.png", factor=10, camera=None)
    for i in range(3):
        (tmp_path / f"{i:06d}-box.txt").write_text("003_cracker_box 1 2 30 40\n")
        meta = {"intrinsic_matrix": np.array([[60 + i, 0, 31.5], [0, 61, 23.5], [0, 0, 1]]), "factor_depth": [[10000]]}
        scipy.io.savemat(tmp_path / f"{i:06d}-meta.mat", meta)
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert [frame.camera.fx for frame in frames] == [60, 61, 62]
    np.testing.assert_allclose(frames[0].depth * frames[0].depth_scale, MILLIMETRES / 1000, atol=1e-6)


def test_arkitscenes_has_times_of_the_device_and_a_camera_of_each_image(tmp_path):
    times = ["3420.100", "3420.201", "3420.300"]
    write(tmp_path, "lowres_wide/4_{}.png", "lowres_depth/4_{}.png", numbers=times, camera=None)
    (tmp_path / "lowres_wide_intrinsics").mkdir()
    for i, time in enumerate(times):
        (tmp_path / "lowres_wide_intrinsics" / f"4_{time}.pincam").write_text(f"64 48 {60 + i} 61 31.5 23.5")
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert tape.timed and [frame.camera.fx for frame in frames] == [60, 61, 62]
    assert [round((b.stamp_ns - a.stamp_ns) / 1e6) for a, b in pairwise(frames)] == [101, 99]


@pytest.mark.parametrize(
    "first, step", [(1_711_111_111_111, 33), (29_417_364_530, 33_333), (2_345_678_901_234, 33_333)]
)
def test_times_of_names_since_1970_and_of_devices(tmp_path, first, step):
    """Milliseconds since 1970, and microseconds since a phone was started, of any length."""
    write(tmp_path, "rgb/{}.png", "depth/{}.png", numbers=[first + i * step for i in range(3)])
    frames = [frame for frame, _ in Recording(tmp_path)]
    assert [round((b.stamp_ns - a.stamp_ns) / 1e6) for a, b in pairwise(frames)] == [33, 33]


def test_polycam_has_smaller_depth_of_the_same_view(tmp_path):
    folder, depth = tmp_path / "keyframes", np.arange(192 * 256, dtype=np.uint16).reshape(192, 256) // 20 + 300
    for name in ("images", "depth", "cameras", "confidence"):
        (folder / name).mkdir(parents=True)
    for i in range(3):
        stamp = 29_417_364_530 + i * 33_333
        cv2.imwrite(str(folder / "images" / f"{stamp}.jpg"), np.full((384, 512, 3), 90, np.uint8))
        cv2.imwrite(str(folder / "depth" / f"{stamp}.png"), depth)
        cv2.imwrite(str(folder / "confidence" / f"{stamp}.png"), np.full((192, 256), 255, np.uint8))
        camera = {"fx": 400.0 + i, "fy": 400.0, "cx": 255.5, "cy": 191.5, "width": 512, "height": 384, "t_00": 1.0}
        (folder / "cameras" / f"{stamp}.json").write_text(json.dumps(camera))
    for path in (folder, tmp_path):
        tape = Recording(path)
        frames = [frame for frame, _ in tape]
        assert [frame.camera.fx for frame in frames] == [400, 401, 402]
        np.testing.assert_array_equal(frames[0].depth, np.kron(depth, np.ones((2, 2), np.uint16)))
        assert any("Apple's LiDAR" in problem for problem in tape.problems)


def test_smaller_depth_of_another_camera_is_refused(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    for i in range(3):
        cv2.imwrite(str(tmp_path / "depth" / f"{i}.png"), MILLIMETRES[::2, ::2])
    tape = Recording(tmp_path)
    assert not [*tape] and any("depth is 32x24 but rgb is 64x48" in line for line in tape.tally.sentences())


@pytest.mark.parametrize(
    "name, words",
    [
        ("distance_to_camera/distance_to_camera_{:04d}.npy", "distance along each ray"),
        ("rgb/{:04d}.depth", "Record3D packs it with LZFSE"),
    ],
)
def test_depth_that_is_not_read_says_what_to_do(tmp_path, name, words):
    write(tmp_path, "rgb/rgb_{:04d}.png", "x/{:04d}.png")
    (tmp_path / name.format(0)).parent.mkdir(exist_ok=True)
    (tmp_path / name.format(0)).write_bytes(b"anything")
    with pytest.raises(RecordingError, match=words):
        Recording(tmp_path)


def test_tenths_of_millimetres_are_not_taken_for_millimetres_in_silence(tmp_path):
    tape = Recording(write(tmp_path, "rgb/{}.png", "depth/{}.png", factor=10))
    assert len([*tape]) == 3
    assert any("is its unit another one? set input.depth_unit" in problem for problem in tape.problems)


@pytest.mark.parametrize("names", [("17.5", "17.6", "17.7"), ("1711111111.532", "1711111121.1", "1711111131.9")])
def test_times_with_decimal_points_are_seconds_however_far_apart(tmp_path, names):
    write(tmp_path, "images/{}.png", "depth/{}.png", numbers=names, camera=None)
    each = [
        {"file_path": f"images/{n}.png", **dict(zip(("fl_x", "fl_y", "cx", "cy"), (60 + i, 61, 31, 23), strict=True))}
        for i, n in enumerate(names)
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": each}))
    frames = [frame for frame, _ in Recording(tmp_path)]
    assert [frame.stamp_ns for frame in frames] == [round(float(n) * 1000) * 1_000_000 for n in names]
    assert [frame.camera.fx for frame in frames] == [60, 61, 62]


def test_numbers_that_no_stamp_holds_are_times_from_the_first_image_on(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.png", numbers=["20260101123456", "20260101123457", "20260101123459"])
    assert [frame.stamp_ns for frame, _ in Recording(tmp_path)] == [0, 10**9, 3 * 10**9]


@pytest.mark.parametrize("numbers", [(0, 1, 2), (100, 110, 120), (1_000_000, 1_000_001, 1_000_002)])
def test_counted_images_are_no_times(tmp_path, numbers):
    tape = Recording(write(tmp_path, "rgb/{}.png", "depth/{}.png", numbers=numbers))
    frames = [frame for frame, _ in tape]
    assert not tape.timed
    assert frames[1].stamp_ns - frames[0].stamp_ns == pytest.approx((numbers[1] - numbers[0]) / 30 * 1e9, abs=2)


def test_record3d_and_blender_write_depth_as_exr(tmp_path):
    exr = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    folder = tmp_path / "EXR_RGBD"
    metadata = {"w": 384, "h": 512, "K": [400, 0, 0, 0, 401, 0, 191.5, 255.5, 1], "fps": 30}
    for i in range(3):
        (folder / "rgb").mkdir(parents=True, exist_ok=True)
        (folder / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "rgb" / f"{i}.jpg"), np.full((512, 384, 3), 90, np.uint8))
        depth = np.full((256, 192), 0.75, np.float32)
        depth[:, :150] = 1e10  # as Blender writes where there is nothing
        channels = {"R": depth, "G": depth, "B": depth} if i else {"V": depth}
        exr.File({"type": exr.scanlineimage}, channels).write(str(folder / "depth" / f"{i}.exr"))
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert len(frames) == 3 and frames[0].camera.fy == 401
    assert all(frame.depth.shape == (512, 384) and frame.depth[5, 383] * frame.depth_scale == 0.75 for frame in frames)
    assert not any("millimetres" in problem or "its unit" in problem for problem in tape.problems)
    (folder / "depth" / "1.exr").write_bytes((folder / "depth" / "1.exr").read_bytes()[:100])
    exr.File({}, {"R": depth, "G": depth * 2, "B": depth}).write(str(folder / "depth" / "2.exr"))
    tape = Recording(tmp_path)
    assert len([*tape]) == 1
    assert any("1.exr is no OpenEXR image" in problem for problem in tape.problems)
    with pytest.raises(InputError, match="2.exr has the channels B, G, R; depth needs one"):
        read_depth(folder / "depth" / "2.exr")


def test_depth_among_other_layers_of_an_exr_file_and_nothing_in_16_bits(tmp_path, monkeypatch):
    exr = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
    write(tmp_path, "rgb/{}.png", "other/{}.png")
    depth = np.full((48, 64), 65504, np.float16)  # most of it: Blender's largest number, where there is nothing
    depth[:10] = 0.75
    layers = {f"ViewLayer.Normal.{axis}": np.full((48, 64), i, np.float16) for i, axis in enumerate("XYZ")}
    (tmp_path / "depth").mkdir()
    for i in range(3):
        channels = {"ViewLayer.Depth.Z": depth, **layers}
        exr.File({"type": exr.scanlineimage}, channels).write(str(tmp_path / "depth" / f"{i}.exr"))
    tape = Recording(tmp_path)
    assert [frame.depth[0, 0] * frame.depth_scale for frame, _ in tape] == [0.75] * 3 and not tape.problems
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_depth("~/depth/0.exr")[0, 0] == 0.75


METRES = (MILLIMETRES / 1000).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "save", "unit"),
    [
        ("{}.npy", lambda path: np.save(path, MILLIMETRES.astype(np.int64)), 0.001),
        ("{}.npy", lambda path: np.save(path, np.where(MILLIMETRES > 900, -1, MILLIMETRES.astype(np.int32))), 0.001),
        ("{}.npy", lambda path: np.save(path, METRES.astype(np.float64)[..., None]), 1),
        ("{}.npy", lambda path: np.save(path, METRES[None].astype(np.float16)), 1),
        ("{}.npz", lambda path: np.savez_compressed(path, METRES), 1),
        ("{}.npz", lambda path: np.savez(path, rgb=np.zeros((48, 64, 3)), depth=METRES), 1),
        ("{}.png", lambda path: cv2.imwrite(str(path), np.dstack([MILLIMETRES] * 3)), 0.001),
        ("{}.tiff", lambda path: cv2.imwrite(str(path), np.dstack([METRES] * 3)), 1),
    ],
    ids=["int64", "int32, -1: none", "float64 of one channel", "float16, channel first", "npz", "npz with colour", "png of colours", "tiff of colours"],
)  # fmt: skip
def test_depth_as_libraries_store_it(tmp_path, name, save, unit):
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    for i in range(3):
        (tmp_path / "depth" / f"{i}.png").unlink()
        save(tmp_path / "depth" / name.format(i))
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert len(frames) == 3 and not tape.problems
    seen = frames[0].depth * frames[0].depth_scale
    known = seen > 0
    assert known.mean() > 0.6
    np.testing.assert_allclose(seen[known], METRES[known], atol=5e-4 if unit == 1 else 1e-6)


def _with_compression(path, number):
    """A TIFF whose tag of compression (259) says another one."""
    cv2.imwrite(str(path), MILLIMETRES)
    data = path.read_bytes()
    at = data.index(bytes([3, 1, 3, 0, 1, 0, 0, 0])) + 8
    path.write_bytes(data[:at] + number.to_bytes(2, "little") + data[at + 2 :])


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("{}.png", lambda path: cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8)), r"0.png holds uint8 \(48, 64, 3\)"),
        ("{}.npy", lambda path: np.save(path, MILLIMETRES.astype(np.uint32) * 100), "holds uint32 .* up to 116700, more than"),
        ("{}.npz", lambda path: np.savez(path, a=METRES, b=METRES), "has the arrays a, b; depth needs one"),
        ("{}.npz", lambda path: path.write_bytes(b"PK\3\4" + bytes(40)), "is no .npz array"),
        ("{}.tiff", lambda path: _with_compression(path, 50000), "TIFF file .* packed otherwise than by deflate or LZW"),
    ],
    ids=["colours", "more than 16 bits", "two arrays", "damaged", "zstd"],
)  # fmt: skip
def test_depth_that_is_none_is_named_at_once(tmp_path, name, save, words):
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    for i in range(3):
        (tmp_path / "depth" / f"{i}.png").unlink()
        save(tmp_path / "depth" / name.format(i))
    with pytest.raises(RecordingError, match=f"no depth image can be read; .*{words}"):
        Recording(tmp_path)


def test_depth_without_a_distance_is_said(tmp_path):
    """OpenGL's z is negative in front of the camera."""
    write(tmp_path, "rgb/{}.png", "depth/{}.npy")
    for path in (tmp_path / "depth").iterdir():
        np.save(path, -np.load(path))
    tape = Recording(tmp_path)
    assert len([*tape]) == 3 and any("no pixel of any frame is a distance" in line for line in tape.problems)


@pytest.mark.parametrize("color", ["rgb.mp4", "rgb/0.png"])
def test_depth_as_a_video_is_named_with_what_makes_images_of_it(tmp_path, color):
    (tmp_path / "depth.mkv").write_bytes(b"\x1aE\xdf\xa3")
    (tmp_path / color).parent.mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / color), np.zeros((48, 64, 3))) if color.endswith("png") else (
        tmp_path / color
    ).write_bytes(b"film")
    with pytest.raises(RecordingError, match=r"depth as a video .depth.mkv. is not read.* ffmpeg -i depth.mkv"):
        Recording(tmp_path)


def test_containers_of_other_programs_are_named(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.hdf5").write_bytes(b"\x89HDF")
    with pytest.raises(RecordingError, match="of .hdf5, of which it holds 3: write what is in it as images"):
        Recording(tmp_path)
    (tmp_path / "data").mkdir()
    cv2.imwrite(str(tmp_path / "data" / "color0.jpg"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "data" / "depth0.dpt").write_bytes(bytes(16))
    with pytest.raises(RecordingError, match="depth in .dpt .* is not read; it is Linemod's own"):
        Recording(tmp_path / "data")
