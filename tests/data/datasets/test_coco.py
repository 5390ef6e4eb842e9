import json
import logging
import math
import os
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from detlite.data.datasets import CocoDetection
from detlite.data.registries import DATASET_REGISTRY
from detlite.errors import DataError


def test_ids_with_gaps_become_classes_in_the_order_of_the_ids(coco_content, write_coco):
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.category_ids.tolist() == [4, 90]
    assert list(dataset.image_ids) == [7, 3]
    assert dataset.classes.tolist() == [1, 0]
    assert dataset.annotation_ids.tolist() == [100, 50]


def test_images_keep_their_order_and_those_without_boxes_are_kept(coco_content, write_coco):
    dataset = CocoDetection(**write_coco(coco_content))
    assert len(dataset) == 2
    assert dataset.heights.tolist() == [40, 30]
    assert dataset.offsets.tolist() == [0, 2, 2]
    assert dataset[1]["image"].shape == (3, 30, 20)
    assert dataset[1]["file_name"].endswith("images/sub/b.png")


def test_missing_areas_and_crowd_flags_are_filled_in(coco_content, write_coco):
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.areas.tolist() == [250.5, 24.0]
    assert dataset.crowd.tolist() == [False, False]


def test_crowds_are_in_the_index_and_not_in_training(coco_content, write_coco):
    coco_content["annotations"][0]["iscrowd"] = 1
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.crowd.tolist() == [True, False]
    assert dataset[0]["boxes"].tolist() == [[1.5, 2.5, 5.5, 8.5]]


def test_the_name_is_that_of_the_json_or_the_title(coco_content, write_coco):
    block = write_coco(coco_content)
    assert CocoDetection(**block).name == "instances"
    assert CocoDetection(**block, title="pets").name == "pets"
    assert (
        DATASET_REGISTRY.build({"name": "CocoDetection", **block, "title": "pets"}).name == "pets"
    )


def test_relative_paths_lie_under_the_data_root(coco_content, write_coco, tmp_path, monkeypatch):
    write_coco(coco_content)
    monkeypatch.setenv("DETLITE_DATASETS", str(tmp_path))
    assert len(CocoDetection(json="instances.json", images="images")) == 2


def test_chosen_classes_are_numbered_as_they_are_given(coco_content, write_coco):
    block = write_coco(coco_content)
    assert CocoDetection(**block, classes=["dog", "cat"]).classes.tolist() == [0, 1]
    dogs = CocoDetection(**block, classes=["dog"])
    assert (dogs.class_names, dogs.category_ids.tolist()) == (("dog",), [90])
    assert dogs.annotation_ids.tolist() == [100]
    assert len(dogs) == 2


def test_numbers_written_as_floats_and_flags_as_bools_are_taken(coco_content, write_coco):
    for image in coco_content["images"]:
        image.update(id=float(image["id"]), height=float(image["height"]))
    coco_content["annotations"][0].update(id=100.0, image_id=7.0, category_id=90.0, iscrowd=True)
    dataset = CocoDetection(**write_coco(coco_content))
    assert json.dumps(list(dataset.image_ids)) == "[7, 3]"
    assert dataset.annotation_ids.tolist() == [100, 50]
    assert dataset.crowd.tolist() == [True, False]


def test_image_ids_may_be_strings_and_annotations_without_id_are_numbered(coco_content, write_coco):
    coco_content["images"][0]["id"] = "first"
    coco_content["images"][1]["id"] = "second"
    for annotation in coco_content["annotations"]:
        annotation["image_id"] = "first"
        del annotation["id"]
    dataset = CocoDetection(**write_coco(coco_content))
    assert list(dataset.image_ids) == ["first", "second"]
    assert dataset[0]["image_id"] == "first"
    assert dataset.annotation_ids.tolist() == [1, 2]


def test_a_box_of_nan_as_python_writes_it_is_left_out_and_told(coco_content, write_coco, caplog):
    coco_content["annotations"][0]["bbox"][2] = math.nan
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset[0]["classes"].tolist() == [0]
    assert "a.jpg: annotation 100" in caplog.text


def test_a_byte_order_mark_does_no_harm(coco_content, write_coco):
    block = write_coco(coco_content)
    with open(block["json"], "w", encoding="utf-8-sig") as file:
        json.dump(coco_content, file)
    assert len(CocoDetection(**block)) == 2


def test_a_data_set_without_boxes_is_fine(coco_content, write_coco):
    coco_content["annotations"] = []
    assert CocoDetection(**write_coco(coco_content))[0]["boxes"].shape == (0, 4)


def change(section, entry, key, value):
    def apply(content):
        content[section][entry][key] = value

    return apply


def repeat(section, **changes):
    def apply(content):
        content[section].append({**content[section][0], **changes})

    return apply


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (change("annotations", 1, "image_id", 8), ["1 of ", "image_id", "8", "50"]),
        (change("annotations", 1, "category_id", 5), ["1 of ", "category_id", "5", "50"]),
        (change("annotations", 1, "bbox", [1, 2, 3]), ["id 50", "four numbers", "[1.0, 2.0, 3.0]"]),
        (change("annotations", 1, "bbox", [1, 2, 3, "4"]), ["id 50", "four numbers", '"4"']),
        (change("annotations", 1, "bbox", None), ["id 50", "no `bbox`", "no `segmentation`"]),
        (change("annotations", 1, "category_id", "cat"), ["category_id of 1 of", "'cat'", "50"]),
        (change("annotations", 1, "category_id", "4"), ["'4'", "text and the other a number"]),
        (change("annotations", 1, "category_id", [4]), ["id 50", "`category_id`", "[4]"]),
        (change("images", 1, "height", -1), ["id 3", "`height`", "got -1"]),
        (change("images", 1, "height", 2**31), ["id 3", "`height`", "got 2147483648"]),
        (change("images", 1, "width", 20.5), ["id 3", "`width`", "20.5"]),
        (lambda content: content["annotations"][1].pop("bbox"), ["id 50", "no `bbox`"]),
        (lambda content: content["images"][1].pop("file_name"), ["id 3", "no `file_name`"]),
        (repeat("images"), ["7 is the image id of more than one"]),
        (repeat("categories", name="cow"), ["90 is the category id of more than one"]),
        (repeat("categories", id=1), ["'dog' is the category name of more than one"]),
        (lambda content: content.pop("images"), ["lists images", "it has annotations, categories"]),
        (lambda content: content.pop("categories"), ["not a COCO instances file", "annotations"]),
        (lambda content: content.update(images={}), ["$.images"]),
        (lambda content: content.update(categories=[], annotations=[]), ["have no classes"]),
    ],
)
def test_a_mistake_in_the_json_is_told_with_its_place(coco_content, write_coco, spoil, parts):
    spoil(coco_content)
    block = write_coco(coco_content)
    with pytest.raises(DataError) as caught:
        CocoDetection(**block)
    for part in [block["json"], *parts]:
        assert part in str(caught.value)


def test_many_lost_annotations_are_counted_and_the_first_are_named(coco_content, write_coco):
    lost = {"image_id": 99, "category_id": 4, "bbox": [1, 1, 2, 2]}
    coco_content["annotations"] += [{**lost, "id": i} for i in range(1000, 1012)]
    with pytest.raises(DataError, match=r"12 of .* 99 .*1000, 1001.*1004 and 7 more"):
        CocoDetection(**write_coco(coco_content))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n"images": [],\n"annotations": [1,\n}', "line 4 column 1"),
        ('{"images": [', "line 1 column 13"),
        ("", "line 1 column 1"),
        ("[]", "it has a list"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(coco_content, write_coco, text, place):
    block = write_coco(coco_content)
    with open(block["json"], "w") as file:
        file.write(text)
    with pytest.raises(DataError, match=place) as caught:
        CocoDetection(**block)
    assert block["json"] in str(caught.value)


@pytest.mark.parametrize("key", ["json", "images"])
def test_a_missing_json_or_folder_is_named(coco_content, write_coco, key):
    block = {**write_coco(coco_content), key: "/nowhere/at_all"}
    with pytest.raises(DataError, match=r"'/nowhere/at_all'.*\$DETLITE_DATASETS"):
        CocoDetection(**block)


def test_missing_images_are_counted_and_named(coco_content, write_coco):
    with pytest.raises(DataError, match=r"1 of the 2 images .*images': sub/b\.png"):
        CocoDetection(**write_coco(coco_content, images=["a.jpg"]))


def test_of_many_missing_images_the_first_five_are_named(coco_content, write_coco):
    coco_content["images"] += [
        {"id": 100 + i, "file_name": f"new/{i}.jpg", "height": 5, "width": 5} for i in range(8)
    ]
    with pytest.raises(DataError, match=r"8 of the 10 .*new/0\.jpg.*new/4\.jpg and 3 more"):
        CocoDetection(**write_coco(coco_content))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dogs"], "class 'dogs' is not in .*did you mean 'dog'.*it has cat, dog"),
        (["cat", "cat"], "each once"),
        ([], "at least one"),
    ],
)
def test_wrong_classes_are_refused(coco_content, write_coco, classes, message):
    with pytest.raises(DataError, match=message):
        CocoDetection(**write_coco(coco_content), classes=classes)


@pytest.mark.datasets
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_index_holds_what_pycocotools_reads(datasets_dir, split, capsys):
    path = datasets_dir / f"coco_mini/annotations/instances_{split}.json"
    dataset = CocoDetection(json=str(path), images=str(datasets_dir / "coco_mini/images"))
    oracle = COCO(str(path))
    assert dataset.category_ids.tolist() == sorted(oracle.getCatIds())
    assert list(dataset.image_ids) == list(oracle.imgs)
    for i, image_id in enumerate(dataset.image_ids):
        here = dataset.boxes_of(i)
        annotations = oracle.loadAnns(oracle.getAnnIds(imgIds=image_id))
        assert dataset.annotation_ids[here].tolist() == [a["id"] for a in annotations]
        assert dataset.boxes_xywh[here].tolist() == [a["bbox"] for a in annotations]
        assert dataset.areas[here].tolist() == [a["area"] for a in annotations]
        assert dataset.crowd[here].tolist() == [bool(a["iscrowd"]) for a in annotations]
        ids = dataset.category_ids[dataset.classes[here]]
        assert ids.tolist() == [a["category_id"] for a in annotations]
        assert len(dataset[i]["boxes"]) == sum(not a["iscrowd"] for a in annotations)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_unicode_encodings_are_read(coco_content, write_coco, encoding):
    coco_content["categories"][0]["name"] = "Hündchen"
    block = write_coco(coco_content)
    with open(block["json"], "w", encoding=encoding) as file:
        json.dump(coco_content, file, ensure_ascii=False)
    assert CocoDetection(**block).class_names == ("cat", "Hündchen")


def test_an_encoding_that_is_not_unicode_is_told_with_file_and_place(coco_content, write_coco):
    coco_content["categories"][0]["name"] = "Hündchen"
    block = write_coco(coco_content)
    with open(block["json"], "w", encoding="latin-1") as file:
        json.dump(coco_content, file, ensure_ascii=False)
    with pytest.raises(DataError, match=r"not UTF-8 text: line 1 .*0xfc.* Save .* UTF-8") as caught:
        CocoDetection(**block)
    assert block["json"] in str(caught.value)


@pytest.mark.parametrize(
    "sizes", [{"height": 0, "width": 0}, {"height": None, "width": 60}, {"width": 60}, {}]
)
def test_sizes_that_the_json_lacks_are_those_of_the_images(coco_content, write_coco, caplog, sizes):
    caplog.set_level(logging.INFO, "detlite")
    image = coco_content["images"][0]
    del image["height"], image["width"]
    image.update(sizes)
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.image_sizes().tolist() == [[40, 60], [30, 20]]
    assert "do not say the size of 1 of 2 images, such as 'a.jpg'" in caplog.text


def test_a_size_from_an_image_file_is_that_of_the_upright_image(coco_content, write_coco):
    del coco_content["images"][0]["height"]
    block = write_coco(coco_content)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (60, 40)).save(f"{block['images']}/a.jpg", exif=turned)
    dataset = CocoDetection(**block)
    assert dataset.image_sizes()[0].tolist() == [60, 40]
    assert dataset[0]["image"].shape == (3, 60, 40)


def test_an_image_whose_size_is_needed_and_cannot_be_read_is_named(coco_content, write_coco):
    del coco_content["images"][0]["height"]
    block = write_coco(coco_content)
    with open(f"{block['images']}/a.jpg", "wb") as file:
        file.write(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(DataError, match=r"cannot read the size of image '.*a\.jpg'"):
        CocoDetection(**block)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://images.example/a.jpg", "a.jpg"),
        ("http://images.example/sub2017/a.jpg?", None),
        ("http://images.example/other/a%2Ejpg", "a.jpg"),
        ("http://images.example/sub/b.png", "sub/b.png"),
    ],
)
def test_a_coco_url_names_the_file_where_file_name_is_missing(coco_content, write_coco, url, found):
    coco_content["images"] = [{"id": 7, "coco_url": url, "height": 40, "width": 60}]
    block = write_coco(coco_content)
    if found is None:
        with pytest.raises(DataError, match="are not in"):
            CocoDetection(**block)
    else:
        assert CocoDetection(**block).file_names[:] == [found]


def test_a_file_without_annotations_is_for_prediction(coco_content, write_coco, caplog):
    caplog.set_level(logging.INFO, "detlite")
    del coco_content["annotations"]
    dataset = CocoDetection(**write_coco(coco_content))
    assert (len(dataset), len(dataset.classes)) == (2, 0)
    assert "no `annotations`; its images serve for prediction only" in caplog.text


def test_category_ids_may_be_texts(coco_content, write_coco):
    for section, key in (("categories", "id"), ("annotations", "category_id")):
        for entry in coco_content[section]:
            entry[key] = f"class {entry[key]}"
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.category_ids.tolist() == ["class 4", "class 90"]
    assert dataset.classes.tolist() == [1, 0]


def test_ids_beyond_64_bits_stay_what_they_are(coco_content, write_coco):
    coco_content["images"][0]["id"] = 10**25
    coco_content["categories"][0]["id"] = 10**30
    for annotation in coco_content["annotations"]:
        annotation.update(image_id=10**25, id=10**28 + annotation["id"])
    coco_content["annotations"][0]["category_id"] = 10**30
    dataset = CocoDetection(**write_coco(coco_content))
    assert [*dataset.image_ids] == [10**25, 3]
    assert dataset.category_ids.tolist() == [4, 10**30]
    assert dataset.annotation_ids.tolist() == [1, 2]


def test_ids_that_differ_as_numbers_and_texts_only_are_refused(coco_content, write_coco):
    coco_content["images"][1]["id"] = "7"
    with pytest.raises(DataError, match="'7' is the image id of more than one entry"):
        CocoDetection(**write_coco(coco_content))


@pytest.mark.parametrize(
    ("key", "number", "message"),
    [
        ("bbox", "[1, 2, 3, " + "9" * 400 + "]", "id 50.*four numbers"),
        ("area", "9" * 400, "id 50.*`area`"),
        ("image_id", "9" * 400, "image_id of 1 of 2"),
        ("image_id", "9" * 5000, "line 1 has a number of 5000 digits"),
        ("image_id", "1e999", "id 50.*`image_id`"),
        ("segmentation", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
)
def test_absurd_numbers_are_told_with_their_place(coco_content, write_coco, key, number, message):
    coco_content["annotations"][1][key] = "HERE"
    block = write_coco(coco_content)
    text = json.dumps(coco_content).replace('"HERE"', number)
    with open(block["json"], "w") as file:
        file.write(text)
    with pytest.raises(DataError, match=message) as caught:
        CocoDetection(**block)
    assert block["json"] in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_file_name_that_is_not_utf_8_is_found(coco_content, write_coco):
    block = write_coco(coco_content)
    name = os.fsdecode(b"caf\xe9.jpg")  # a lone surrogate, which JSON writes as \udce9
    os.rename(f"{block['images']}/a.jpg", f"{block['images']}/{name}")
    coco_content["images"][0]["file_name"] = name
    with open(block["json"], "w") as file:
        json.dump(coco_content, file)
    dataset = CocoDetection(**block)
    assert dataset.file_name(0) == f"{block['images']}/{name}"
    assert dataset[0]["image"].shape == (3, 40, 60)


@pytest.mark.parametrize("name", ["\ud800.jpg", "a\0.jpg", "a\n.jpg", "x" * 5000])
def test_a_name_that_no_file_can_have_is_told_in_printable_text(coco_content, write_coco, name):
    coco_content["images"][0]["file_name"] = name
    with pytest.raises(DataError, match="1 of the 2 images") as caught:
        CocoDetection(**write_coco(coco_content))
    told = str(caught.value).replace("\n    ", "")
    assert told.isprintable()
    assert len(told) < 600


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\ud800", "a\0", "x" * 201, "\u202e"])
def test_a_class_name_that_tables_cannot_hold_is_refused(coco_content, write_coco, name):
    coco_content["categories"][0]["name"] = name
    with pytest.raises(DataError, match=r"class 1 is called .*can be printed") as caught:
        CocoDetection(**write_coco(coco_content))
    assert str(caught.value).isprintable()


def test_more_classes_than_evaluation_can_hold_are_refused(coco_content, write_coco):
    coco_content["categories"] += [{"id": 100 + i, "name": f"c{i}"} for i in range(25_000)]
    with pytest.raises(DataError, match=r"has 25002 classes.*at most 25000"):
        CocoDetection(**write_coco(coco_content))


@pytest.fixture
def case(cases_dir):
    """A data set of a folder of cases."""
    return lambda folder, name, **keys: CocoDetection(
        json=str(cases_dir / folder / f"{name}.json"),
        **{"images": str(cases_dir / folder / "img"), **keys},
    )


@pytest.mark.datasets
def test_boxes_are_made_from_polygons(case, caplog):
    caplog.set_level(logging.INFO, "detlite")
    made, expected = case("polygon-only", "poly_only"), case("polygon-only", "boxes_expected")
    assert made.boxes_xywh.tolist() == expected.boxes_xywh.tolist()
    assert made.areas.tolist() == expected.areas.tolist()
    assert f"{len(made.classes)} of {len(made.classes)} annotations have no `bbox`" in caplog.text


@pytest.mark.datasets
@pytest.mark.parametrize("name", ["roboflow_root", "roboflow_dup"])
def test_a_category_that_only_groups_others_is_left_out(case, caplog, name):
    caplog.set_level(logging.INFO, "detlite")
    dataset = case("roboflow-root", name)
    assert len(dataset.class_names) == 2
    assert 0 not in dataset.category_ids
    assert "(id 0) is left out" in caplog.text
    assert "keeps it" in caplog.text


@pytest.mark.datasets
def test_a_category_that_groups_others_is_kept_where_classes_names_it(case, cases_dir):
    content = json.loads((cases_dir / "roboflow-root/roboflow_root.json").read_text())
    names = [category["name"] for category in content["categories"]]
    assert case("roboflow-root", "roboflow_root", classes=names).class_names == tuple(names)


@pytest.mark.datasets
def test_boxes_in_wrong_units_are_warned_of_with_an_example(case, caplog):
    case("wrong-box-units", "normalised")
    assert "normalised: 12 of 12 boxes have no number above 1.5: they look normal" in caplog.text
    assert "E.g. im0.png: annotation 1, class" in caplog.text
    caplog.clear()
    case("wrong-box-units", "xyxy")
    assert "they look like corners x1, y1, x2, y2" in caplog.text
    assert "E.g. im0.png: annotation " in caplog.text


@pytest.mark.datasets
def test_boxes_of_real_data_are_not_taken_for_wrong_ones(datasets_dir, caplog):
    for name in ("bccd/annotations/instances_train", "coco_mini/annotations/instances_val"):
        folder = datasets_dir / name.partition("/")[0] / "images"
        CocoDetection(json=f"{datasets_dir}/{name}.json", images=str(folder))
    assert "look" not in caplog.text


def test_boxes_beyond_their_image_are_counted_in_the_log(coco_content, write_coco, caplog):
    caplog.set_level(logging.INFO, "detlite")
    coco_content["annotations"][0]["bbox"] = [50, 5, 20, 15]
    dataset = CocoDetection(**write_coco(coco_content))
    assert "1 of 2 boxes reach beyond their image and are clipped" in caplog.text
    assert "annotation 100, class 'dog', x, y, w, h = 50, 5, 20, 15 in 60 x 40" in caplog.text
    assert dataset.boxes_xywh[0].tolist() == [50, 5, 20, 15]


@pytest.mark.datasets
def test_backslashes_separate_folders(case, cases_dir):
    folder = str(cases_dir / "paths-of-windows")
    dataset = case("paths-of-windows", "backslash", images=folder)
    assert dataset.file_names[0] == "img/im0.png"
    assert dataset[0]["image"].shape == (3, 96, 128)


@pytest.mark.datasets
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("case", "im0.PNG is there as 'im0.png', in other letters"),
        ("prefixed", "images/im0.png is there as 'im0.png', in another folder"),
        ("backslash", "img/im0.png is there as 'im0.png', in another folder"),
    ],
)
def test_the_name_under_which_a_missing_image_is_there_is_suggested(case, name, hint):
    with pytest.raises(DataError, match=r"4 of the 4 images") as caught:
        case("paths-of-windows", name)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "there"),
    [("my%20a.jpg", "my a.jpg"), ("A.JPG", "sub/a.jpg"), ("x/y/a.jpg", "y/a.jpg")],
)
def test_other_names_of_a_missing_image_are_found(coco_content, write_coco, asked, there):
    block = write_coco(coco_content)
    target = Path(block["images"], there)
    target.parent.mkdir(exist_ok=True)
    Path(block["images"], "a.jpg").rename(target)
    coco_content["images"][0]["file_name"] = asked
    Path(block["json"]).write_text(json.dumps(coco_content))
    with pytest.raises(DataError) as caught:
        CocoDetection(**block)
    assert f"{asked} is there as '{there}'" in str(caught.value)


def test_a_device_or_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in ("/dev/zero", str(tmp_path / "pipe.json")):
        with pytest.raises(DataError, match=f"'{path}': it is no regular file"):
            CocoDetection(json=path, images=str(tmp_path))
