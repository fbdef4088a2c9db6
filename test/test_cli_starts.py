"""--init-mask and --init-box: what they take, and what they say of what they do not take."""

from __future__ import annotations

import cv2
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


PHOTO = np.random.default_rng(0).integers(30, 255, (48, 64, 3), dtype=np.uint8)
CUT = np.zeros((48, 64), np.uint8)
CUT[10:30, 20:40] = 1


def paletted(*colors: int) -> Image.Image:
    picture = Image.fromarray(CUT)
    picture.putpalette(colors)
    return picture


@pytest.mark.parametrize(
    "file, picture",
    {
        "photograph.png": Image.fromarray(np.dstack([PHOTO, 255 * CUT])),  # cut out by its alpha
        "grey.png": Image.fromarray(np.dstack([PHOTO[..., 0], 255 * CUT]), "LA"),
        "white.jpg": Image.fromarray(255 * CUT),
        "white.webp": Image.fromarray(255 * CUT).convert("RGB"),
        "one.png": Image.fromarray(CUT),
        "label.png": Image.fromarray(CUT.astype(np.uint16)),
        "bits.png": Image.fromarray(CUT.astype(bool)),
        "voc.png": paletted(0, 0, 0, 128, 0, 0),
        "plot.png": paletted(68, 1, 84, 253, 231, 37),
        "black.png": paletted(0, 0, 0, 0, 0, 0),
        "on_black.png": Image.fromarray(PHOTO * CUT[..., None]),
        "soft.png": Image.fromarray(cv2.GaussianBlur(255 * CUT, (0, 0), 1.5)),
    }.items(),
)
def test_masks_as_programs_write_them(tmp_path, file, picture):
    picture.save(tmp_path / file)
    (start,) = parse_starts([f"mug={tmp_path / file}"], [], SPECS)
    if picture.mode not in ("L", "RGB") or (file.endswith("png") and file != "soft.png"):
        assert np.array_equal(start.mask, CUT > 0)
    assert (start.mask & (CUT > 0)).sum() / (start.mask | (CUT > 0)).sum() > 0.9


def test_a_picture_that_cuts_nothing_out_is_named(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "m.png")
    with pytest.raises(ConfigError, match="nowhere black or transparent"):
        parse_starts([f"mug={tmp_path / 'm.png'}"], [], SPECS)


@pytest.mark.parametrize("values", [CUT > 0, CUT[None].astype(np.float32) * 9 - 4], ids=["bool", "logits"])
def test_masks_as_arrays(tmp_path, values):
    np.save(tmp_path / "m.npy", values)
    (start,) = parse_starts([f"mug={tmp_path / 'm.npy'}"], [], SPECS)
    assert np.array_equal(start.mask, CUT > 0)


def test_several_masks_in_an_array_and_an_inverted_one_are_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.stack([CUT, CUT]))
    with pytest.raises(ConfigError, match=r"uint8 \(2, 48, 64\), expected .* one mask"):
        parse_starts([f"mug={tmp_path / 'm.npy'}"], [], SPECS)
    Image.fromarray(255 - 255 * CUT).save(tmp_path / "m.png")
    with pytest.raises(ConfigError, match="set in all four corners.* is it inverted"):
        parse_starts([f"mug={tmp_path / 'm.png'}"], [], SPECS)


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
