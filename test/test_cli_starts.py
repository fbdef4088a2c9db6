"""--init-mask and --init-box: what they take, and what they say of what they do not take."""

from __future__ import annotations

import numpy as np
import pytest
import typer
from PIL import Image

from rfdetr_foundationpose.cli.starts import parse_starts
from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.objects import ObjectSpec

SPECS = [ObjectSpec("mug", __file__), ObjectSpec("tea_box", __file__)]


def test_masks_and_boxes_are_read(tmp_path):
    mask = np.zeros((30, 40, 4), np.uint8)
    mask[..., 3] = 255
    mask[5:10, 20:30, 1] = 7
    Image.fromarray(mask).save(tmp_path / "m.png")
    first, second = parse_starts([f"mug={tmp_path / 'm.png'}"], ["tea_box=1,2,30.5,40"], SPECS)
    assert first.object == "mug" and first.mask.shape == (30, 40) and int(first.mask.sum()) == 50
    assert second.object == "tea_box" and second.box.tolist() == [1, 2, 30.5, 40]


@pytest.mark.parametrize(
    "masks, boxes, error, words",
    [
        ([], ["mug"], typer.BadParameter, "expected OBJECT="),
        ([], ["mug=1,2,3"], typer.BadParameter, "four numbers"),
        ([], ["cup=1,2,3,4"], ConfigError, "no object 'cup'; the objects file has mug, tea_box"),
        (["mug=/no/such.png"], [], OSError, "/no/such.png"),
        ([f"mug={__file__}"], [], ConfigError, "is no picture"),
    ],
)
def test_what_cannot_be_read_is_named(masks, boxes, error, words):
    with pytest.raises(error, match=words):
        parse_starts(masks, boxes, SPECS)
