"""Masks and depths of boxes, and detections from recorded masks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import Config, DetectorConfig
from rfdetr_foundationpose.detect import DetectorError, build_detector
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.mask_head import masks as quick_masks
from rfdetr_foundationpose.detect.mask_head import quicken_masks
from rfdetr_foundationpose.detect.masks import (
    box_depths,
    box_mask,
    clip_box,
    depth_mask,
    instance_mask,
    is_outline,
    mask_box,
    masks_fit,
)
from rfdetr_foundationpose.detect.rfdetr_detector import _mask_kind
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.types import CameraIntrinsics, Frame, InputError
from support.detector_models import SEG_TINY, loaded

CAMERA = CameraIntrinsics(200.0, 200.0, 80.0, 60.0, 160, 120)
BOX = np.array([50.2, 40.0, 90.0, 80.7], np.float32)


def scene() -> torch.Tensor:
    """A disc at 0.8 m before a wall at 2 m, with holes, and something else at 0.85 m in a corner of the box."""
    depth = torch.full((120, 160), 2.0)
    y, x = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    depth[(x - 70) ** 2 + (y - 60) ** 2 < 15**2] = 0.8
    depth[40:45, 50:55] = 0.85
    depth[::7] = 0.0
    return depth


def test_depth_of_a_box_is_that_of_its_middle():
    boxes = torch.tensor([BOX.tolist(), [0.0, 0.0, 20.0, 20.0], [200.0, 100.0, 300.0, 118.0]])
    depth = scene()
    depth[0:20, 0:20] = 0
    found = box_depths(boxes, depth)
    assert found[0] == pytest.approx(0.8)
    assert torch.isnan(found[1])
    assert found[2] == 2.0  # outside boxes are clamped to the border


def test_depth_mask_keeps_the_connected_thing_in_the_middle():
    mask = depth_mask(BOX, 0.8, scene(), CAMERA)
    assert mask[61, 70] and mask[66, 60]
    assert not mask[41, 51] and not mask[78, 88] and not mask[60, 120]
    assert not mask[::7].any()


def test_depth_mask_without_depth_is_the_box():
    for median, depth in ((None, scene()), (0.8, torch.zeros(120, 160))):
        assert torch.equal(depth_mask(BOX, median, depth, CAMERA), box_mask(BOX, 120, 160, torch.device("cpu")))


def test_box_mask_covers_touched_pixels_and_never_nothing():
    mask = box_mask(BOX, 120, 160, torch.device("cpu"))
    assert np.array_equal(mask_box(mask.numpy()), [50, 40, 90, 81])
    assert clip_box(np.array([-5.0, -5.0, -1.0, -1.0]), 120, 160) == (0, 0, 1, 1)
    assert clip_box(np.array([159.9, 119.9, 400.0, 400.0]), 120, 160) == (159, 119, 160, 120)


def test_instance_masks_are_upsampled_logits_near_their_box():
    logits = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(logits[None, None], (120, 160), mode="bilinear")[0, 0] > 0
    box = np.array([40.0, 30.0, 80.0, 60.0], np.float32)
    mask = instance_mask(logits, box, 120, 160)
    near = torch.zeros_like(whole)
    near[26:64, 36:84] = True
    assert mask.dtype == torch.bool and mask.any() and torch.equal(mask, whole & near)
    assert torch.equal(instance_mask(logits, np.array([0.0, 0.0, 160.0, 120.0]), 120, 160), whole)


def test_masks_that_do_not_belong_to_their_box():
    logits = torch.full((4, 24, 32), -1.0)
    logits[0, 6:12, 8:16] = 1.0  # in it
    logits[1, 6:12, 24:32] = 1.0  # elsewhere
    logits[1, 6, 8] = 1.0
    logits[2, 8, 10] = 1.0  # a speck
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5]]).expand(4, 4)
    assert masks_fit(logits, boxes).tolist() == [True, False, False, False]


def test_mask_box_of_an_empty_mask():
    assert mask_box(np.zeros((4, 4), bool)) is None


def test_a_filled_box_is_no_outline():
    box = box_mask(BOX, 120, 160, torch.device("cpu")).numpy()
    assert not is_outline(box, mask_box(box))
    assert is_outline(np.tri(40, dtype=bool), np.array([0, 0, 40, 40], np.float32))


def test_quicker_head_gives_the_masks_of_rfdetr():
    net = library.network(loaded("seg-nano", **SEG_TINY).model).eval()
    head = net.segmentation_head
    with torch.no_grad():
        for p in head.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    features, queries = torch.randn(2, 64, 8, 8), torch.randn(2, 20, 64)
    slow = copy.deepcopy(head)
    quicken_masks(net)
    quick = copy.deepcopy(head)
    for one in (slow, quick):
        one.export()
    assert quick.forward.__func__ is quick_masks and slow.forward.__func__ is not quick_masks
    with torch.inference_mode():
        for skip in (False, True):
            (expected,), (got,) = (one(features, [queries], (96, 96), skip_blocks=skip) for one in (slow, quick))
            assert got.shape == (2, 20, 24, 24) and expected.std() > 0.1
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    boxes = library.network(loaded().model)
    quicken_masks(boxes)
    assert boxes.segmentation_head is None


def test_mask_kinds():
    assert _mask_kind("auto", True, "w") == "instance"
    assert _mask_kind("auto", False, "w") == "box-depth"
    assert _mask_kind("box", True, "w") == "box"
    with pytest.raises(DetectorError, match="needs a segmentation variant"):
        _mask_kind("instance", False, "w")


def recorded(masks: dict[str, np.ndarray], depth: np.ndarray | None = None) -> Frame:
    depth = np.full((120, 160), 900, np.uint16) if depth is None else depth
    return Frame(0, "camera", np.zeros((120, 160, 3), np.uint8), depth, 0.001, CAMERA, masks)


def mask_detector():
    config = Config()
    config.detector = DetectorConfig(source="mask-topic")
    specs = [ObjectSpec("mug", mesh=__file__), ObjectSpec("can", mesh=__file__, max_instances=2)]
    return build_detector(config, specs, torch.device("cpu"))


def blob(x: int) -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    mask[30:50, x : x + 10] = True
    return mask


def test_recorded_masks_become_detections():
    detector = mask_detector()
    assert (detector.source, detector.backend) == ("mask-topic", "")
    frame = recorded({"mug": blob(10), "can_1": blob(60), "can": np.zeros((120, 160), bool), "other": blob(90)})
    frame.depth[30:40] = 0
    found = detector.detect(Uploader("cpu")(frame)).detections
    assert [(d.object, d.score, d.source) for d in found] == [("mug", 1.0, "mask-topic"), ("can", 1.0, "mask-topic")]
    np.testing.assert_array_equal(found[1].box, [60, 30, 70, 50])
    assert found[0].depth == pytest.approx(0.9) and torch.equal(found[0].mask, torch.from_numpy(blob(10)))


def test_recorded_mask_without_depth_and_of_another_size():
    detector = mask_detector()
    found = detector.detect(Uploader("cpu")(recorded({"mug": blob(10)}, np.zeros((120, 160), np.uint16)))).detections
    assert found[0].depth is None
    with pytest.raises(InputError, match="mask of mug is 5x4, the image 160x120"):
        detector.detect(Uploader("cpu")(recorded({"mug": np.ones((4, 5), bool)})))
