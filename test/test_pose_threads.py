"""On a CPU Warp's kernels run for several hypotheses side by side: the same crops and sums, whatever the number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from rfdetr_foundationpose import warp_setup
from rfdetr_foundationpose.pose import renderer as rendering
from rfdetr_foundationpose.pose.depth import DepthFilter
from rfdetr_foundationpose.pose.hypotheses import view_rotations
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.views import CropSettings, ViewSet
from rfdetr_foundationpose.warp_setup import parts_of, side_by_side
from support.pose_scenes import CAMERA, object_of, random_pose, scene_of, textured_box

HYPOTHESES = 21


@pytest.fixture(scope="module")
def observed():
    item, T = object_of(textured_box()), random_pose(5)
    frame, _ = scene_of(item, T)
    raw = torch.from_numpy(frame.depth)
    parts = DepthFilter("cpu", 0.1, 4.0).where_needed(raw)
    camera = torch.tensor([[CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy]])
    return item, T, Observation(torch.from_numpy(frame.rgb), parts.filtered, camera, parts)


def everything(observed, threads: int, monkeypatch, official=()) -> list[torch.Tensor]:
    """Crops of both roles, with one observed crop each and with a shared one, and sums."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    item, T, observation = observed
    crops = CropSettings(textured=True, official_crops=official)
    views = ViewSet(WarpRenderer([item], "cpu"), HYPOTHESES, "cpu", crops)
    views.poses[:, :3, :3] = torch.tensor(view_rotations()[:: 252 // HYPOTHESES], dtype=torch.float32)
    views.poses[:, :3, 3] = torch.tensor(T[:3, 3], dtype=torch.float32)
    views.diameters.fill_(item.diameter)
    found = []
    for role, shared in (("refiner", True), ("refiner", False), ("scorer", False)):
        found += [crops.clone() for crops in views.pairs(HYPOTHESES, observation, role, shared=shared)]
    found.append(views.agree(HYPOTHESES, observation).clone())
    return found


@pytest.mark.parametrize("official", [(), ("refiner", "scorer")])
@pytest.mark.parametrize("threads", [2, 3, 64])
@pytest.mark.parametrize("faces", ["rasterized", "cast"])
def test_crops_do_not_depend_on_the_number_of_threads(threads, official, faces, observed, monkeypatch):
    if faces == "cast":
        monkeypatch.setitem(rendering.MOST_FACES, "cpu", 0)
    with torch.inference_mode():
        one = everything(observed, 1, monkeypatch, official)
        many = everything(observed, threads, monkeypatch, official)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert all(float(a.abs().max()) > 0 for a in one)


def test_parts_are_all_of_it(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for count in (0, 1, 3, 4, 10):
        parts = parts_of(count, "cpu")
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
        assert len(parts) == max(min(4, count), 1)
    assert len(parts_of(10, "cpu", 2)) == 2
    assert parts_of(10, "cuda:0") == [slice(0, 10)]


def test_a_part_that_fails_is_heard_after_the_others_have_ended(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    done = []

    def work(part: slice, i: int) -> None:
        if i == 1:
            raise RuntimeError("no memory")
        done.append(i)

    with pytest.raises(RuntimeError, match="no memory"):
        side_by_side(work, parts_of(9, "cpu"))
    assert sorted(done) == [0, 2]


def test_a_module_is_compiled_by_one_thread(monkeypatch):
    """Both would write the same files of the cache."""
    loads, inside = [], threading.Lock()

    class Module:
        def load(self, device: str) -> None:
            assert inside.acquire(blocking=False), "two at once"
            loads.append(device)
            inside.release()

    class Kernel:
        module = Module()

    monkeypatch.setattr(warp_setup, "_loaded", set())
    monkeypatch.setattr(warp_setup.wp, "launch", lambda *a, **b: None)
    threads = [threading.Thread(target=warp_setup.launch, args=(Kernel(), 1, [], "cpu")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(loads) <= 8 and set(loads) == {"cpu"}
    warp_setup.launch(Kernel(), 1, [], "cpu")
    assert warp_setup._loaded == {Kernel.module}


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_torch_wait_without_spinning_unless_the_user_says_otherwise(own, expected):
    """OpenMP itself says by what it goes: it must be told before torch loads it."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({} if own is None else {"OMP_WAIT_POLICY": own})
    script = "import rfdetr_foundationpose, torch; torch.rand(100, 100) @ torch.rand(100, 100)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240)
    said = [line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line]
    assert done.returncode == 0
    if not said:
        pytest.skip("this torch has another OpenMP")
    assert all(expected in line for line in said)
