import json
import math

import pytest
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
        (change("annotations", 1, "category_id", "cat"), ["50", "category_id", "'cat'"]),
        (change("images", 1, "width", 20.5), ["id 3", "`width`", "20.5"]),
        (lambda content: content["annotations"][1].pop("bbox"), ["id 50", "no `bbox`"]),
        (lambda content: content["images"][1].pop("file_name"), ["id 3", "`coco_url`"]),
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


def test_sizes_that_the_file_does_not_say_are_the_images(coco_content, write_coco, caplog):
    caplog.set_level("INFO", "detlite")
    coco_content["images"][0].update(height=0, width=None)
    del coco_content["images"][1]["width"]
    dataset = CocoDetection(**write_coco(coco_content))
    assert (dataset.heights.tolist(), dataset.widths.tolist()) == ([40, 30], [60, 20])
    assert "2 of 2 images" in caplog.text


def test_a_file_name_may_come_from_the_url(coco_content, write_coco):
    coco_content["images"][1].pop("file_name")
    coco_content["images"][1]["coco_url"] = "http://images.cocodataset.org/sub/b.png"
    assert CocoDetection(**write_coco(coco_content)).file_names[1] == "sub/b.png"


def test_a_file_without_annotations_serves_for_prediction(coco_content, write_coco, caplog):
    caplog.set_level("INFO", "detlite")
    del coco_content["annotations"]
    assert len(CocoDetection(**write_coco(coco_content)).classes) == 0
    assert "prediction only" in caplog.text


def test_ids_may_be_texts_or_beyond_64_bits(coco_content, write_coco):
    coco_content["categories"] = [{"id": "dog-id", "name": "dog"}, {"id": "4", "name": "cat"}]
    first, second = coco_content["annotations"]
    first.update(category_id="dog-id", id=2**70)
    second.update(category_id="4", image_id=2**70)
    coco_content["images"][1]["id"] = 2**70
    dataset = CocoDetection(**write_coco(coco_content))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.classes.tolist() == [1, 0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_of_unicode_are_read(coco_content, write_coco, encoding):
    block = write_coco(coco_content)
    with open(block["json"], "w", encoding=encoding) as file:
        json.dump(coco_content, file, ensure_ascii=False)
    assert len(CocoDetection(**block)) == 2


@pytest.mark.parametrize("content", [b'{"images": "\xe4"}', b'{"images": ' + b"9" * 5000 + b"}"])
def test_what_cannot_be_read_names_the_file_and_the_line(coco_content, write_coco, content):
    block = write_coco(coco_content)
    with open(block["json"], "wb") as file:
        file.write(content)
    with pytest.raises(DataError, match=r"instances\.json' .* line 1 "):
        CocoDetection(**block)


@pytest.mark.datasets
def test_boxes_of_polygons_are_those_expected(cases_dir, caplog):
    caplog.set_level("INFO", "detlite")
    folder = cases_dir / "polygon-only"
    made, expected = (
        CocoDetection(json=str(folder / name), images=str(folder / "img"))
        for name in ("poly_only.json", "boxes_expected.json")
    )
    assert made.boxes_xywh.tolist() == expected.boxes_xywh.tolist()
    assert "have no `bbox`" in caplog.text


@pytest.mark.datasets
@pytest.mark.parametrize("name", ["roboflow_root.json", "roboflow_dup.json"])
def test_a_category_that_only_groups_others_is_left_out(cases_dir, caplog, name):
    caplog.set_level("INFO", "detlite")
    folder = cases_dir / "roboflow-root"
    dataset = CocoDetection(json=str(folder / name), images=str(folder / "img"))
    assert len(dataset.class_names) == 2
    assert "is left out" in caplog.text
    assert "classes" in caplog.text


@pytest.mark.datasets
def test_backslashes_separate_folders(cases_dir):
    folder = cases_dir / "paths-of-windows"
    dataset = CocoDetection(json=str(folder / "backslash.json"), images=str(folder))
    assert dataset.file_names[0] == "img/im0.png"


@pytest.mark.datasets
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("case.json", "in other letters"),
        ("prefixed.json", "in another folder"),
        ("urlenc.json", "without URL quoting"),
        ("backslash.json", "in another folder"),
    ],
)
def test_the_file_that_is_meant_is_suggested(cases_dir, tmp_path, name, how):
    folder = cases_dir / "paths-of-windows"
    images = folder / "img"
    if name == "urlenc.json":
        images = tmp_path
        for k in range(4):
            (tmp_path / f"my im{k}.png").write_bytes((folder / f"img/im{k}.png").read_bytes())
    with pytest.raises(DataError, match=how):
        CocoDetection(json=str(folder / name), images=str(images))
