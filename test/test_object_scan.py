"""``object board`` and ``object scan``: the print has its size, a scanned mesh is the object's, bad scans are said."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.object_tools.board import BOARDS, BoardFinder, write_pdf
from rfdetr_foundationpose.object_tools.fusion import Surface, closed, only_object, without_edges
from rfdetr_foundationpose.object_tools.pass_registration import fit_passes
from rfdetr_foundationpose.object_tools.scan import scan
from rfdetr_foundationpose.object_tools.scan_pass import ScanError
from rfdetr_foundationpose.object_tools.texture import FACES
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.synth.generate import load_scene_objects
from rfdetr_foundationpose.synth.scan_video import ScanSettings, ScanVideo

BOARD = BOARDS["a4"]
# A walk of half a minute, of which few frames are kept.
SETTINGS = ScanSettings(frames=36, rate=1.2, size=(384, 512), pose=1)


def video(**changes) -> ScanVideo:
    (mug,) = load_scene_objects(names=("mug",))
    return ScanVideo(mug, (BOARD.picture(4), BOARD.size), replace(SETTINGS, **changes))


def frames_of(made: ScanVideo):
    return [made.frame(i)[0] for i in range(len(made))]


@pytest.fixture(scope="module")
def good():
    made = video()
    return made, frames_of(made)


@pytest.mark.parametrize("name", list(BOARDS))
def test_the_pdf_has_the_sheets_size_and_the_squares_theirs(tmp_path, name):
    board = BOARDS[name]
    write_pdf(board, tmp_path / "board.pdf")
    content = (tmp_path / "board.pdf").read_bytes()
    box = [float(v) for v in re.search(rb"/MediaBox \[ ?([\d. ]+)\]", content)[1].split()]
    np.testing.assert_allclose(box[2:], np.array(board.page) / 0.0254 * 72, atol=0.2)
    width, height = board.size
    assert width < board.page[0] - 0.008 and height < board.page[1] - 0.02
    image = board.picture(10)
    # A black square's side: the first column of the picture begins with one of the two colours.
    runs = np.flatnonzero(np.diff((image[5] > 127).astype(int)))
    assert image.shape == (round(1e4 * height), round(1e4 * width)) and len(runs) >= board.columns - 2
    assert min(np.diff(runs)) >= 0.11 * 1e4 * board.square  # nothing finer than a marker's bits


def test_the_boards_pose_is_found_as_the_camera_has_it(good):
    made, frames = good
    finder = BoardFinder(BOARD, made.camera)
    for index in (0, 12, 30):
        found = finder.find(frames[index].rgb)
        truth = np.linalg.inv(made.frame(index)[1].T_world_cam)
        assert found.corners >= 12 and found.error < 0.6
        for point in ([0, 0, 0.05, 1], [0.05, 0.05, 0, 1]):
            assert np.linalg.norm((found.T_cam_board - truth) @ point) < 1.5e-3
    assert finder.find(np.full((384, 512, 3), 128, np.uint8)) is None


def apart(found, made, where=lambda points: np.ones(len(points), bool)) -> tuple[float, float]:
    """90th percentile of the distance from the true surface to the mesh and back, m. where: of the points in its frame."""
    T = np.linalg.inv(found.T_board_obj) @ made.T_board_obj
    vertices = made.model.arrays.vertices + made.model.center
    true = trimesh.Trimesh(vertices @ T[:3, :3].T + T[:3, 3], made.model.arrays.faces, process=False)
    on_truth, _ = trimesh.sample.sample_surface(true, 60_000, seed=0)
    on_mesh, _ = trimesh.sample.sample_surface(found.mesh, 60_000, seed=0)
    there, back = on_truth[::10], on_mesh[::10]
    there, back = there[where(there)], back[where(back)]
    return (
        float(np.quantile(cKDTree(on_mesh).query(there)[0], 0.9)),
        float(np.quantile(cKDTree(on_truth).query(back)[0], 0.9)),
    )


def test_a_scanned_mesh_is_the_object_within_a_millimetre_and_a_half(good):
    made, frames = good
    found = scan([frames], BOARD)
    assert found.used == found.frames == len(frames)
    T = np.linalg.inv(found.T_board_obj) @ made.T_board_obj
    assert max(apart(found, made)) < 1.5e-3
    # Origin on the board below the middle, z up, metres.
    low, high = found.mesh.bounds
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-6)
    assert abs(low[2]) < 2e-3 and 0.08 < high[2] < 0.11
    assert found.mesh.is_watertight and found.mesh.volume > 0
    # What is written is that with fewer triangles.
    assert len(found.textured.faces) <= FACES and max(apart(replace(found, mesh=found.textured), made)) < 1.5e-3
    assert found.coverage > 0.85 and found.residual[0] < 1.5e-3 and found.holes < 0.1
    assert not any("fast" in r or "glossy" in r or "printed" in r for r in found.remarks), found.remarks
    # The print is on it: the red handle and the white body.
    colours = np.asarray(found.mesh.visual.vertex_colors)[:, :3].astype(int)
    red = (colours[:, 0] > 2 * colours[:, 1]) & (colours[:, 0] > 2 * colours[:, 2]) & (colours[:, 0] > 40)
    handle = ((found.mesh.vertices - T[:3, 3]) @ T[:3, :3])[:, 0] > 0.05  # along x in the mug's own frame
    assert red[handle].mean() > 0.8 > 0.2 > red[~handle].mean()
    # White is white on every side, though one was lit and the other was not.
    around = (found.mesh.vertices - T[:3, 3]) @ T[:3, :3]
    wall = (np.hypot(around[:, 0], around[:, 1]) > 0.038) & (np.abs(found.mesh.vertex_normals[:, 2]) < 0.3)
    white = wall & (np.ptp(colours, axis=1) < 40) & (colours.max(1) > 90)
    sector = (np.arctan2(around[:, 1], around[:, 0]) / (2 * np.pi) % 1 * 8).astype(int)
    medians = [
        np.median(colours[white & (sector == i)].mean(1)) for i in range(8) if (white & (sector == i)).sum() > 100
    ]
    assert len(medians) >= 6 and min(medians) > 160 and max(medians) < 1.3 * min(medians), medians


@pytest.fixture(scope="module")
def turned():
    """The mug upside down, with other light and on another place."""
    made = video(frames=26, rate=0.87, pose=0, seed=3)
    return made, frames_of(made)


def test_a_second_pass_adds_the_underside_where_the_first_pass_has_it_flat(good, turned):
    (made, frames), (_, others) = good, turned
    found = scan([frames, others], BOARD)
    assert found.passes == 2 and found.frames == len(frames) + len(others)
    assert found.seam.overlap > 0.4 and found.seam.distance < 1e-3
    assert found.mesh.is_watertight and found.mesh.volume > 0
    # Also inside of the mug, whose wall is thinner than what the fusion takes in behind a surface.
    assert max(apart(found, made)) < 1.5e-3
    assert max(apart(found, made, lambda p: p[:, 2] < 0.004)) < 1.5e-3
    low, high = found.mesh.bounds
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-6)
    assert abs(low[2]) < 2e-3 and 0.08 < high[2] < 0.11
    assert json.dumps(found.as_dict()) and "seam_mm" in found.as_dict()


def test_passes_are_joined_by_their_print_where_the_shape_leaves_a_turn_open():
    """A can looks the same after any turn about its axis, but for its label."""
    surfaces = []
    rng = np.random.default_rng(2)
    spots = rng.uniform(-1, 1, (60, 3)) * (0.04, 0.04, 0.05) + (0, 0, 0.05)
    spot_colours = rng.uniform(40, 230, (60, 3))
    can = trimesh.creation.cylinder(0.035, 0.1, sections=64).subdivide_to_size(0.004)
    can.apply_translation((0, 0, 0.05))
    colours = spot_colours[cKDTree(spots).query(can.vertices)[1]]
    T = trimesh.transformations.euler_matrix(np.pi, 0.0, 1.1)
    T[:3, 3] = (0.01, -0.02, 0.1)  # on its head
    for motion, seen in ((np.eye(4), can.vertices[:, 2] > 0.004), (T, can.vertices[:, 2] < 0.096)):
        mesh = trimesh.Trimesh(trimesh.transform_points(can.vertices, motion), can.faces, process=False)
        mesh.visual = trimesh.visual.ColorVisuals(
            mesh, vertex_colors=np.c_[colours, np.full(len(colours), 255)].astype(np.uint8)
        )
        surfaces.append(Surface(mesh, np.where(seen, 5, 0)))
    fit = fit_passes(*surfaces, floor=0.003)
    error = fit.T_first_second @ T
    assert np.linalg.norm(error[:3, 3]) < 1e-3
    assert np.rad2deg(np.arccos(np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1))) < 1.0
    assert fit.overlap > 0.6


def test_passes_of_two_different_objects_are_not_joined(good):
    _, frames = good
    (can,) = load_scene_objects(names=("soup_can",))
    other = ScanVideo(can, (BOARD.picture(4), BOARD.size), replace(SETTINGS, frames=16, rate=0.55, pose=2))
    with pytest.raises(ScanError, match=r"pass 2 does not fit pass 1 .*is it the same object"):
        scan([frames[::2], frames_of(other)], BOARD)


def remarks_of(frames, board=BOARD, **options) -> str:
    return " | ".join(scan([frames], board, **options).remarks)


def test_a_glossy_object_is_said():
    said = remarks_of(frames_of(video(frames=24, rate=0.8, mirror=0.5)))
    assert "glossy, dark or transparent" in said and "too fast" not in said


def test_a_camera_that_moves_too_fast_and_one_that_stays_on_one_side_are_said(good):
    _, frames = good
    hurried = [replace(f, stamp_ns=f.stamp_ns // 8) for f in frames]
    assert "moved too fast" in remarks_of(hurried)
    assert "moved too fast" not in remarks_of(hurried, timed=False)
    half = frames[: len(frames) // 3][:6] * 3  # the same few places again
    assert "sides: walk all the way round" in remarks_of(half)


def test_a_board_that_is_hidden_or_blurred_gives_no_mesh_and_says_why(good):
    _, frames = good
    blurred = [replace(f, rgb=cv2.blur(f.rgb, (25, 25))) for f in frames[:14]]
    with pytest.raises(ScanError, match=r"found in \d of 14 frames.*moves fast blurs it"):
        scan([blurred], BOARD)
    covered = frames_of(video(frames=14, rate=0.5, hidden=0.8))
    with pytest.raises(ScanError, match="not covered by"):
        scan([covered], BOARD)


def test_a_wrong_print_size_is_said(good):
    _, frames = good
    smaller = replace(BOARD, square=BOARD.square * 0.96)
    with pytest.raises(ScanError, match="4.. % too large; was it printed at 100 %"):
        scan([frames[::2]], smaller)
    slightly = replace(BOARD, square=BOARD.square * 0.985)
    assert "was it printed at 100 %?" in remarks_of(frames[::2], slightly)


def test_an_empty_board_and_one_that_is_too_small_are_said(good):
    made, frames = good
    empty = []
    for f in frames[:14]:
        # The board's own plane where the object was.
        T = np.linalg.inv(BoardFinder(BOARD, made.camera).find(f.rgb).T_cam_board)
        v, u = np.mgrid[0:384, 0:512]
        rays = np.stack(
            [(u - made.camera.cx) / made.camera.fx, (v - made.camera.cy) / made.camera.fy, np.ones(u.shape)], -1
        )
        plane = np.clip(-T[2, 3] / np.minimum(rays @ T[2, :3], -1e-3), 0, 5)
        empty.append(replace(f, depth=(1000 * plane).astype(np.uint16)))
    with pytest.raises(ScanError, match="nothing stands on the board"):
        scan([empty], BOARD)
    with pytest.raises(ScanError, match="holds no frame"):
        scan([[]], BOARD)


def test_depth_beside_steps_is_left_out():
    depth = np.full((20, 20), 0.5, np.float32)
    depth[:, 10:] = 0.6
    kept = without_edges(depth)
    assert (kept[:, 9:11] == 0).all()
    assert (kept[10:, :8] == 0.5).all() and (kept[:, 12:] == np.float32(0.6)).all()


def test_what_the_pictures_cut_off_is_closed_flat():
    """Nothing is known above the highest pixels: neither that it is free nor that it is solid."""
    i, j, k = np.mgrid[0:48, 0:48, 0:48]
    # A block of 20 x 20 x 30, whose sides were seen; its top and what is above were not.
    outside = np.maximum(np.maximum(np.abs(i - 23.5), np.abs(j - 23.5)) - 10, 4 - k)
    weight = (outside > -3).astype(np.float32)
    weight[(k > 33) & (outside < 8)] = 0
    field = closed(np.clip(outside / 4, -1, 1).astype(np.float32), weight, 0)
    assert (field[outside <= -3][k[outside <= -3] <= 33] < 0).all()
    assert (field[k > 36] > 0).all()
    assert (field[(outside > 0) & (k <= 33)] > 0).all()


def test_noise_bores_no_holes_through_a_thin_floor():
    """Depth of a mug's inner floor says here and there that it is lower than the height from which on the board counts."""
    i, j, k = np.mgrid[0:60, 0:60, 0:24]
    solid = (np.maximum(np.abs(i - 29.5), np.abs(j - 29.5)) < 25) & (k < 14)
    narrow, wide = [np.maximum(np.abs(i - x), np.abs(j - x)) < r for x, r in ((15, 3), (38, 8))]
    field = np.where(solid & ~narrow & ~wide, -0.5, 0.5).astype(np.float32)
    made = only_object(field, np.array([-0.03, -0.03, -0.004]), 0.001, 0.003)
    below = (k < 7) & (k > 4)
    assert (made[narrow & below] < 0).all() and (made[narrow & (k > 7)] > 0).all()
    assert (made[wide] > 0).all() and (made[solid & ~narrow & ~wide & (k > 4)] < 0).all()


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def test_board_scan_and_entry_from_the_command_line(tmp_path, capsys):
    assert run("object", "board", "--out", str(tmp_path / "board.pdf")) == 0
    assert run("object", "board", "--out", str(tmp_path / "board.pdf")) == 2
    assert "--overwrite" in capsys.readouterr().err
    made = ("--object", "mug", "--frames", "24", "--size", "512x384", "--device", "cpu", "--out", str(tmp_path / "bag"))
    assert run("generate", "scan", *made) == 0
    file = tmp_path / "objects.yaml"
    words = ("object", "scan", str(tmp_path / "bag"), "--name", "cup", "--objects-file", str(file), "--device", "cpu")
    assert run(*words, "--voxel", "2") == 0
    printed = capsys.readouterr().out
    assert "train detector --objects-file" in printed and "from 24 of 24 frames" in printed
    (spec,) = load_objects(file)
    assert spec.mesh == (tmp_path / "meshes" / "cup.glb").resolve() and spec.scale == 1.0
    assert json.loads((tmp_path / "meshes" / "cup.json").read_text())["coverage"] > 0.5
    assert np.asarray(Image.open(tmp_path / "cup.sides.png")).std() > 10
    assert run(*words) == 2
    assert "cup.glb exists" in capsys.readouterr().err
    assert run("object", "scan", "--name", "jar", "--objects-file", str(file)) == 2
    assert "give recordings, or --camera" in capsys.readouterr().err
    assert run(*words, "--overwrite", "--turned-over") == 2
    assert "--turned-over is with --camera" in " ".join(capsys.readouterr().err.split())
