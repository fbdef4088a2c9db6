"""COCO data sets as programs export them: found, checked, and read with the right masks, boxes and classes."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from rfdetr_foundationpose.replay.coco_masks import outlines, within
from rfdetr_foundationpose.train.coco_files import read_dataset
from rfdetr_foundationpose.train.coco_find import DatasetError
from rfdetr_foundationpose.train.coco_source import CocoSource

HEIGHT, WIDTH = 40, 80
RUNS = {"size": [40, 80], "counts": [20 * 40 + 10, *[20, 20] * 39, 20, 20 * 40 + 10]}  # columns of 40 pixels
MUG = {"id": 1, "name": "mug"}


def picture(path, size=(HEIGHT, WIDTH), level=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def coco(file, names, *, categories=(MUG,), entry=None, annotations=None, **more):
    """A file of images, each with one instance of the first category unless ``annotations`` says otherwise."""
    one = {"category_id": categories[-1]["id"], "bbox": [20, 10, 40, 20], **(entry or {})}
    images = [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names, 1)]
    made = [{"id": i, "image_id": i, **one} for i in range(1, len(names) + 1)] if annotations is None else annotations
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": made, "categories": list(categories), **more}
    file.write_text(json.dumps(content))


def drawn(path, size=(20, 40), count=1):
    return CocoSource(read_dataset(path)[0], "cpu", size, 0).sample(count)


def test_coco_instances_without_polygons_are_their_boxes(tmp_path):
    picture(tmp_path / "a.png")
    root = {"id": 0, "name": "root", "supercategory": "none"}
    blue = {"id": 4, "name": "blue box"}
    entry = {"bbox": [20, 10, 40.00000000000001, 20.00000000000001]}  # of percentages, as Label Studio's are
    coco(tmp_path / "_annotations.coco.json", ["a.png"], categories=[root, blue], entry=entry)
    batch = drawn(tmp_path)
    assert batch.names == ("blue box",)
    assert batch.box[0, 0].tolist() == [10.0, 5.0, 30.0, 15.0]
    assert (batch.instance[0] == 0).sum() == 200


@pytest.mark.parametrize(
    "segmentation",
    [[[20, 10, 60, 10, 60, 30, 20, 30]], [20, 10, 60, 10, 60, 30, 20, 30], RUNS, [[20, 10, 40, 10]], [], [[]], None],
    ids=["polygon", "bare polygon", "runs", "two points", "none", "an empty one", "null"],
)
def test_coco_instances_of_every_form_have_the_same_box(tmp_path, segmentation):
    """Outlines of COCO reach from the left edge of the first pixel to the right edge of the last."""
    picture(tmp_path / "a.png")
    coco(tmp_path / "_annotations.coco.json", ["a.png"], entry={"segmentation": segmentation})
    for size, box in (((20, 40), [10, 5, 30, 15]), ((40, 80), [20, 10, 60, 30]), ((24, 48), [12, 6, 36, 18])):
        assert drawn(tmp_path, size).box[0, 0].tolist() == box


@pytest.mark.parametrize("bbox", [None, [], [1, 2, 0, 0], ["a", 0, 1, 1], [200, 0, 5, 5]], ids=str)
def test_an_outline_needs_no_box_and_what_has_neither_is_left_out(tmp_path, caplog, bbox):
    picture(tmp_path / "a.png")
    outline = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": bbox,
        "segmentation": [[20, 10, 60, 10, 60, 30, 20, 30]],
    }
    nothing = {"id": 2, "image_id": 1, "category_id": 1, "bbox": bbox}
    coco(tmp_path / "result.json", ["a.png"], annotations=[outline, nothing])
    batch = drawn(tmp_path)
    assert batch.box[0].tolist() == [[10, 5, 30, 15]]
    assert "1 annotations have neither an outline nor a box" in caplog.text


@pytest.mark.parametrize(
    "segmentation", [[[1, 2, 3]], {"size": [4, 4], "counts": [3]}, {"counts": "x"}, [[1, 2, None, 3, 4, 5]]]
)
def test_a_segmentation_that_cannot_be_read_is_named(tmp_path, segmentation):
    picture(tmp_path / "a.png")
    coco(tmp_path / "_annotations.coco.json", ["a.png"], entry={"segmentation": segmentation})
    with pytest.raises(DatasetError, match=r"segmentation of annotation 1 \(image a.png\)"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_coco_are_read_as_they_are_written(seed):
    """Written and read at half pixels, as pycocotools has it, of which this loses no pixel either."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((60, 80)).astype(np.float32), (0, 0), 1 + seed)
    mask = (noise > np.quantile(noise, 0.7)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = cv2.drawContours(np.zeros_like(mask), contours, -1, 1, -1)  # without holes
    assert np.array_equal(within(outlines(mask), mask.shape), whole > 0)


# Where programs put annotations and images, and how they name the latter: (file, its images' names, where they are).
LAYOUTS = {
    "Roboflow": (("{}/_annotations.coco.json", "a{}.png", "{}/a{}.png"), ("train", "valid")),
    "COCO": (("annotations/instances_{}2017.json", "a{}.png", "{}2017/a{}.png"), ("train", "val")),
    "CVAT, Datumaro": (("annotations/instances_{}.json", "sub/a{}.png", "images/{}/sub/a{}.png"), ("train", "val")),
    "FiftyOne": (("{}/labels.json", "a{}.png", "{}/data/a{}.png"), ("train", "validation")),
    "of another machine": (("{}.json", "/home/anna/set/a{}.png", "images/{}/a{}.png"), ("train", "val")),
    "of Windows": (("annotations/{}.json", "images\\{}\\a{}.png", "images/{}/a{}.png"), ("train", "val")),
    "a network": (("{}/coco.json", "https://host/x/a%20{}.png?k=1", "{}/images/a {}.png"), ("train", "test")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_programs_are_found_with_their_own_images(tmp_path, layout):
    """Both splits have images of the same names, which differ in brightness."""
    (file, name, where), splits = LAYOUTS[layout]
    for split, level in zip(splits, (60, 180), strict=True):
        named = name.format(split, "{}") if name.count("{}") == 2 else name
        for i in range(3):
            picture(tmp_path / where.format(split, i), level=level)
        coco(tmp_path / file.format(split), [named.format(i) for i in range(3)])
    train, valid = read_dataset(tmp_path)
    assert (len(train.images), len(valid.images)) == (3, 3)
    for split, level in ((train, 60), (valid, 180)):
        batch = CocoSource(split, "cpu", (20, 40), 0).sample(3)
        assert abs(batch.rgb.float().mean() - level) < 2
        assert batch.box[:, 0].tolist() == [[10, 5, 30, 15]] * 3


@pytest.mark.parametrize(
    "file, named, where",
    [
        ("result.json", "images/a{}.png", "images/a{}.png"),  # Label Studio
        ("annotations/instances_default.json", "a{}.png", "images/default/a{}.png"),  # CVAT
        ("coco_annotations.json", "images/a{}.png", "images/a{}.png"),  # BlenderProc
        ("labels.json", "a{}.png", "data/a{}.png"),  # FiftyOne
    ],
)
def test_a_set_that_is_not_split_is_measured_with_a_tenth(tmp_path, caplog, file, named, where):
    caplog.set_level(logging.INFO)
    for i in range(20):
        picture(tmp_path / where.format(i))
    coco(tmp_path / file, [named.format(i) for i in range(20)])
    for path in (tmp_path, tmp_path / file):
        train, valid = read_dataset(path)
        assert (len(train.images), len(valid.images)) == (18, 2)
        assert not {i.path for i in train.images} & {i.path for i in valid.images}
    assert "2 of its 20 images are measured with" in caplog.text


def test_the_scenes_of_bop_are_one_data_set(tmp_path):
    """Each numbers its images anew, and has only the objects in it."""
    for scene, category in (("000000", 5), ("000001", 8)):
        for i in range(2):
            picture(tmp_path / scene / "rgb" / f"{i:06d}.png", level=100 + category)
        entry = {"bbox": [20, 10, 40, 20], "ignore": False, "segmentation": RUNS}
        names = [f"rgb/{i:06d}.png" for i in range(2)]
        coco(
            tmp_path / scene / "scene_gt_coco.json",
            names,
            categories=[{"id": category, "name": str(category)}],
            entry=entry,
        )
    train, valid = read_dataset(tmp_path)
    assert train.names == ("5", "8") and len(train.images) + len(valid.images) == 4
    batch = CocoSource(train, "cpu", (20, 40), 0).sample(3)
    for rgb, label in zip(batch.rgb.float().mean((1, 2, 3)).tolist(), batch.label[:, 0].tolist(), strict=True):
        assert abs(rgb - (105, 108)[label]) < 1
    assert batch.box[:, 0].tolist() == [[10, 5, 30, 15]] * 3


def test_files_of_other_kinds_beside_the_instances_are_passed_over(tmp_path):
    picture(tmp_path / "train2017" / "a.png")
    for name, annotation in (("captions", {"caption": "a mug"}), ("panoptic", {"segments_info": []})):
        coco(
            tmp_path / "annotations" / f"{name}_train2017.json", ["a.png"], annotations=[{"image_id": 1, **annotation}]
        )
    coco(tmp_path / "annotations" / "instances_train2017.json", ["a.png"])
    assert read_dataset(tmp_path)[0].file.name == "instances_train2017.json"


def test_classes_are_those_that_the_categories_mean(tmp_path):
    """By name in both splits, whatever their numbers; roots and backgrounds are none."""
    trained = [
        {"id": 0, "name": "things-x7", "supercategory": "none"},
        {"id": 1, "name": "drill", "supercategory": "things-x7"},
        {"id": "2", "name": "mug", "supercategory": "things-x7"},
        {"id": 7, "name": "_background_"},
    ]
    picture(tmp_path / "train" / "a.png")
    picture(tmp_path / "valid" / "a.png")
    two = [{"id": i, "image_id": 1, "category_id": i, "bbox": [20, 10, 40 - i, 20]} for i in (1, 2)]
    coco(tmp_path / "train" / "x.json", ["a.png"], categories=trained, annotations=two)
    coco(tmp_path / "valid" / "x.json", ["a.png"], categories=[{"id": 0, "name": "mug", "supercategory": "none"}])
    train, valid = read_dataset(tmp_path)
    assert train.names == valid.names == ("drill", "mug")
    assert [i.label for i in train.images[0].instances] == [0, 1] and valid.images[0].instances[0].label == 1
    coco(tmp_path / "valid" / "x.json", ["a.png"], categories=[{"id": 0, "name": "cup"}])
    with pytest.raises(DatasetError, match="annotations of cup, of which training has none: it has drill, mug"):
        read_dataset(tmp_path)


def test_a_class_is_kept_where_every_supercategory_is_none(tmp_path):
    picture(tmp_path / "a.png")
    flat = [{"id": i, "name": n, "supercategory": "none"} for i, n in enumerate(("drill", "mug"))]
    coco(tmp_path / "x.json", ["a.png"], categories=flat)
    assert read_dataset(tmp_path)[0].names == ("drill", "mug")


def crowded(folder, **more):
    picture(folder / "a.png")
    marked = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [20, 10, 40, 20], "segmentation": RUNS, "iscrowd": 1}
    plain = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 10], "iscrowd": 0}
    categories = [MUG, {"id": 2, "name": "drill"}]
    coco(
        folder / "x.json", ["a.png"], categories=categories, annotations=[marked, *more.pop("others", [plain])], **more
    )
    return [i.visibility for i in read_dataset(folder)[0].images[0].instances]


def test_crowds_are_neither_learned_nor_background(tmp_path):
    assert crowded(tmp_path, licenses=[{"id": 1, "name": "CC BY", "url": "x"}]) == [0.0, 1.0]
    batch = drawn(tmp_path, (40, 80))
    assert batch.box[0, batch.visibility[0] == 0].tolist() == [[20, 10, 60, 30]]


def test_masks_of_cvat_and_datumaro_are_no_crowds(tmp_path):
    """They mark every mask as one."""
    assert crowded(tmp_path, licenses=[{"name": "", "id": 0, "url": ""}]) == [1.0, 1.0]


def test_a_class_of_crowds_alone_is_learned(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert crowded(tmp_path, others=[]) == [1.0]
    assert "taken as one thing each" in caplog.text


@pytest.mark.parametrize("stated", [(80, 40), (40, 80)], ids=["turned", "as stored"])
def test_photographs_are_turned_as_the_annotations_say(tmp_path, stated):
    """A telephone stores 80x40 and notes a quarter turn; programs annotate what they show, or what is stored."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :20] = 255  # upper left as stored, upper right as shown
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": stated[0], "width": stated[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}],
        "categories": [MUG],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    rgb = drawn(tmp_path, stated).rgb[0].float().mean(-1)
    assert (rgb[10, stated[1] - 10] > 200) == (stated == (80, 40)) and (rgb[10, 10] > 200) == (stated == (40, 80))


def test_images_that_are_missing_damaged_or_others_are_left_out_and_said(tmp_path, caplog):
    for name in ("a.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    picture(tmp_path / "d.png", (60, 60))
    coco(tmp_path / "x.json", ["a.png", "b.png", "c.png", "d.png", "gone.png"])
    source = CocoSource(read_dataset(tmp_path / "x.json")[0], "cpu", (20, 40), 0)
    source.sample(8)
    assert "1 images are missing, e.g. gone.png" in caplog.text
    assert (
        sum(text in caplog.text for text in ("b.png cannot be decoded", "60x60 pixels, its annotations are of 80x40"))
        >= 1
    )
    assert len(source) <= 3


def test_a_file_that_two_names_would_be_is_neither(tmp_path):
    picture(tmp_path / "images" / "1.png")
    picture(tmp_path / "images" / "2.png")
    coco(tmp_path / "x.json", ["/set/left/1.png", "/set/right/1.png", "/set/left/2.png"])
    train, valid = read_dataset(tmp_path)
    assert {i.path.name for i in (*train.images, *valid.images)} == {"2.png"}


def test_boxes_that_are_fractions_or_corners_are_said(tmp_path, caplog):
    picture(tmp_path / "a.png")
    coco(tmp_path / "x.json", ["a.png"], entry={"bbox": [40, 20, 70, 35]})
    read_dataset(tmp_path)
    assert "100% of its boxes reach beyond their images" in caplog.text
    coco(tmp_path / "x.json", ["a.png"], entry={"bbox": [0.2, 0.1, 0.5, 0.5]})
    with pytest.raises(DatasetError, match="fractions of the image; COCO's are in pixels"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "is no JSON"),
        ('{"images": []}', "no list annotations, categories"),
        ('{"images": [], "annotations": [], "categories": []}', "0 images and 0 categories"),
        (
            '{"images": [], "annotations": [{"category_id": 3, "image_id": 0}], "categories": []}',
            "categories 3, which it does not list",
        ),
        (
            '{"images": [{"id": 1}, {"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "mug"}]}',
            "2 images have only 1 different ids",
        ),
        (
            '{"images": [{"id": 0, "file_name": "gone.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "mug"}]}',
            "none of its 1 images is there, e.g. gone.jpg",
        ),
    ],
)
def test_unusable_data_sets_say_why(tmp_path, content, words):
    (tmp_path / "_annotations.coco.json").write_text(content)
    with pytest.raises(DatasetError, match=words):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "files, words",
    [
        ({"data.yaml": "names: [mug]", "train/labels/a.txt": "0 .5 .5 .1 .1", "train/images/a.jpg": ""}, "from_yolo"),
        ({"obj.data": "classes = 1", "obj_train_data/a.txt": "0 .5 .5 .1 .1"}, "from_yolo"),
        ({"Annotations/a.xml": "<annotation/>", "JPEGImages/a.jpg": ""}, "from_pascal_voc"),
        (
            {"annotations.xml": "<?xml?>\n<annotations>\n", "images/a.jpg": ""},
            "CVAT's own form: export the task as COCO 1.0",
        ),
        ({"a.json": '{"shapes": [], "imagePath": "a.jpg"}', "a.jpg": ""}, "labelme2coco"),
        (
            {"project-1.json": '[{"id": 1, "data": {}, "annotations": []}]'},
            "Label Studio's own JSON; export the project as COCO",
        ),
        ({"via.json": '{"_via_img_metadata": {}}'}, "project of VIA"),
        ({"train.json": '{"items": [], "categories": {}, "info": {}}'}, "datum convert"),
        ({"_annotations.createml.json": '[{"image": "a.jpg", "annotations": []}]'}, "CreateML"),
        ({"export.zip": "PK"}, "unpack export.zip"),
        ({"a.jpg": ""}, "it holds a.jpg; export the annotations as COCO"),
    ],
)
def test_other_layouts_are_named_with_what_helps(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match="no data set in COCO layout") as found:
        read_dataset(tmp_path)
    assert words in str(found.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="gone does not exist"):
        read_dataset(tmp_path / "gone")
