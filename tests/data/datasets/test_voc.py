import shutil
from pathlib import Path

import pytest
from PIL import Image

from detlite.data.datasets import CocoDetection, VocDetection
from detlite.errors import DataError

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult>"
    "<part><name>head</name><bndbox><xmin>0</xmin></bndbox></part>"
    "<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"
    "</object>"
)


def describe(*objects, height=40, width=60):
    keys = ("name", "xmin", "ymin", "xmax", "ymax", "difficult")
    inside = "".join(OBJECT.format(**dict(zip(keys, item, strict=True))) for item in objects)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{inside}</annotation>"


@pytest.fixture
def tree(tmp_path):
    """A tree whose train split has ``a`` and ``b``, and whose val split has ``c``."""
    root = tmp_path / "pets"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    xml = {
        "a": describe(("dog", 11, 6, 30, 20, 0), ("cat", "1.5", 2, 4, 9, 1)),
        "b": describe(),
        "c": describe(("zebra", 1, 1, 9, 9, 0)),
    }
    for name, text in xml.items():
        (root / f"Annotations/{name}.xml").write_text(text)
        Image.new("RGB", (60, 40)).save(
            root / f"JPEGImages/{name}.{'png' if name == 'b' else 'jpg'}"
        )
    (root / "ImageSets/Main/train.txt").write_text("a\nb\n\n")
    (root / "ImageSets/Main/val.txt").write_text("c\r\n")
    return root


def test_boxes_flags_and_names_are_read(tree):
    dataset = VocDetection(root=str(tree), split="train")
    assert dataset.name == "pets_train"
    assert list(dataset.image_ids) == ["a", "b"]
    assert dataset.boxes_xywh.tolist() == [[11, 6, 19, 14], [1.5, 2, 2.5, 7]]
    assert [dataset.class_names[k] for k in dataset.classes] == ["dog", "cat"]
    assert dataset.difficult.tolist() == [False, True]
    assert dataset.areas.tolist() == [19 * 14, 2.5 * 7]
    assert dataset[0]["difficult"].tolist() == [False, True]
    assert dataset.file_name(1) == str(tree / "JPEGImages/b.png")


def test_lists_with_flags_or_suffixes_name_the_same_images(tree):
    expected = VocDetection(root=str(tree), split="train").image_ids
    (tree / "ImageSets/Main/train.txt").write_text("a  1\nb.png -1\n")
    assert list(VocDetection(root=str(tree), split="train").image_ids) == list(expected)


def test_without_a_split_every_xml_is_taken_and_images_may_lie_elsewhere(tree):
    (tree / "JPEGImages").rename(tree / "img")
    shutil.rmtree(tree / "ImageSets")
    dataset = VocDetection(root=str(tree), images="img")
    assert dataset.name == "pets"
    assert list(dataset.image_ids) == ["a", "b", "c"]
    assert dataset.file_name(0) == str(tree / "img/a.jpg")
    with pytest.raises(DataError, match="without the key `split` all XML files are taken"):
        VocDetection(root=str(tree), split="train")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Unspecified", False), ("False", False), ("", False), ("0", False), ("1", True),
     ("true", True)],
)  # fmt: skip
def test_words_in_place_of_the_flag_difficult_are_understood(tree, word, expected):
    (tree / "Annotations/c.xml").write_text(describe(("zebra", 1, 1, 9, 9, word)))
    assert VocDetection(root=str(tree), split="val").difficult.tolist() == [expected]


def test_all_splits_number_the_classes_alike(tree):
    names = {VocDetection(root=str(tree), split=s).class_names for s in ("train", "val")}
    assert names == {("cat", "dog", "zebra")}


def test_chosen_classes_are_numbered_as_they_are_given(tree):
    dataset = VocDetection(root=str(tree), split="train", classes=["zebra", "cat"])
    assert dataset.class_names == ("zebra", "cat")
    assert dataset.category_ids.tolist() == [1, 2]
    assert dataset.classes.tolist() == [1]


def test_original_voc_counts_pixels_from_one_and_includes_the_last(tree):
    dataset = VocDetection(root=str(tree), split="train", one_based=True)
    assert dataset.boxes_xywh[0].tolist() == [10, 5, 20, 15]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<annotation>", ["no element found"]),
        ("<html></html>", ["its root is <html>"]),
        (describe(height=-1), ["<size/height> is -1"]),
        (describe(height="nan"), ["<size/height> is nan"]),
        (describe(height="1_0"), ["<size/height> must be a number, got '1_0'"]),
        (describe(("dog", 1, 1, 2, 2, "maybe")), ["object 1", "<difficult>", "got 'maybe'"]),
        (describe(("dog", 1, 1, 2, "x", 0)), ["object 1", "<bndbox/ymax>", "number, got 'x'"]),
        (describe(("dog", 1, 1, 2, 2, 0), ("dog", 1, "", 2, 2, 0)), ["object 2", "<bndbox/ymin>"]),
        (describe(("", 1, 1, 2, 2, 0)), ["object 1", "<name> is missing or empty"]),
    ],
)
def test_a_mistake_in_the_xml_is_told_with_its_place(tree, text, parts):
    path = tree / "Annotations/a.xml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        VocDetection(root=str(tree), split="train")
    for part in [str(path), *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_expand(tree, encoding):
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>' + describe().replace("3", "&c;")
    path = tree / "Annotations/a.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{bomb}', encoding=encoding)
    with pytest.raises(DataError, match=r"a\.xml.*DOCTYPE"):
        VocDetection(root=str(tree), split="train")


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("Annotations/b.xml", r"cannot read the annotation '.*b\.xml': No such file"),
        ("JPEGImages/b.png", r"1 of the 2 images that 'train\.txt' names .*JPEGImages': b\.jpg"),
        ("ImageSets/Main/train.txt", r"train\.txt' of split 'train'.*Splits there: val"),
    ],
)
def test_missing_files_are_named(tree, remove, message):
    (tree / remove).unlink()
    with pytest.raises(DataError, match=message):
        VocDetection(root=str(tree), split="train")


def test_a_name_listed_twice_is_refused(tree):
    (tree / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"train\.txt' lists 1 images more than once, e\.g\. 'a'"):
        VocDetection(root=str(tree), split="train")


def test_an_unknown_class_is_refused(tree):
    with pytest.raises(DataError, match=r"'zebr' is not in .*did you mean 'zebra'"):
        VocDetection(root=str(tree), split="train", classes=["zebr"])


@pytest.mark.datasets
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_voc_and_coco_form_of_the_same_data_give_the_same_training_records(datasets_dir, split):
    folder = datasets_dir / "bccd"
    coco = CocoDetection(
        json=str(folder / f"annotations/instances_{split}.json"), images=str(folder / "images")
    )
    voc = VocDetection(root=str(folder / "voc"), split=split, classes=["RBC", "WBC", "Platelets"])
    assert records(voc) == records(coco)


def records(dataset):
    result = {}
    for i in range(len(dataset)):
        kept = ~dataset.degenerate[dataset.boxes_of(i)]
        boxes = dataset.clipped_boxes(i)[kept].tolist()
        classes = dataset.classes[dataset.boxes_of(i)][kept].tolist()
        result[Path(dataset.file_name(i)).name] = list(zip(boxes, classes, strict=True))
    return result


@pytest.mark.datasets
def test_the_two_empty_boxes_of_bccd_are_told_by_file_and_object(datasets_dir, caplog):
    for split in ("train", "val", "test"):
        VocDetection(root=str(datasets_dir / "bccd/voc"), split=split)
    assert len(caplog.records) == 2
    assert "Annotations/BloodImage_00338.xml: object 13, class 'RBC'" in caplog.text
    assert "Annotations/BloodImage_00343.xml: object 4, class 'RBC'" in caplog.text


@pytest.mark.parametrize("text", ["a  1\nb -1\n", "a.jpg\nb.png\n", "a.JPG 0\nb\n", "\ufeffa\nb"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_may_have_flags_and_suffixes(tree, text, encoding):
    if text[0] == "\ufeff" and encoding == "utf-16":
        text = text[1:]
    (tree / "ImageSets/Main/train.txt").write_text(text, encoding=encoding)
    dataset = VocDetection(root=str(tree), split="train")
    assert [*dataset.image_ids] == ["a", "b"]


def test_a_name_that_ends_as_a_flag_is_a_name_where_it_has_an_xml(tree):
    for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (tree / f"{folder}/a.{suffix}").rename(tree / f"{folder}/a 1.{suffix}")
    (tree / "ImageSets/Main/train.txt").write_text("a 1\nb 1\n")
    assert [*VocDetection(root=str(tree), split="train").image_ids] == ["a 1", "b"]


def test_a_tree_without_lists_has_all_xml_files_and_folders_of_other_names(tree):
    (tree / "ImageSets/Main/train.txt").unlink()
    (tree / "JPEGImages").rename(tree / "photos")
    (tree / "Annotations").rename(tree / "xml")
    dataset = VocDetection(root=str(tree), images="photos", annotations="xml")
    assert [*dataset.image_ids] == ["a", "b", "c"]
    assert dataset.name == "pets"
    assert dataset[1]["image"].shape == (3, 40, 60)


def test_a_missing_list_is_told_with_the_remedy(tree):
    with pytest.raises(DataError, match=r"no list '.*none\.txt'.*without the key `split`"):
        VocDetection(root=str(tree), split="none")


@pytest.mark.parametrize(
    ("word", "difficult"),
    [("Unspecified", False), ("False", False), ("false", False), ("", False), ("0", False)]
    + [("1", True), ("true", True), ("True", True)],
)
def test_words_say_whether_an_object_is_difficult(tree, word, difficult):
    (tree / "Annotations/a.xml").write_text(describe(("dog", 1, 1, 9, 9, word)))
    dataset = VocDetection(root=str(tree), split="train")
    assert dataset.difficult.tolist() == [difficult]


@pytest.mark.datasets
def test_an_object_of_unspecified_difficulty_counts(cases_dir):
    tree = cases_dir / "voc-difficult-word/tree"
    assert VocDetection(root=str(tree), split="train").difficult.tolist() == [False]


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_a_size_that_the_xml_lacks_is_that_of_the_image(tree, size):
    (tree / "Annotations/a.xml").write_text(f"<annotation>{size}</annotation>")
    dataset = VocDetection(root=str(tree), split="train")
    assert dataset.image_sizes().tolist() == [[40, 60], [40, 60]]


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "utf-16", "utf-8", "euc-kr"])
def test_the_declared_encoding_of_an_xml_is_read(tree, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + describe(("\u5927", 1, 1, 9, 9, 0))
    (tree / "Annotations/a.xml").write_bytes(text.encode(encoding))
    assert "\u5927" in VocDetection(root=str(tree), split="train").class_names


@pytest.mark.parametrize(
    "data",
    [
        b'<?xml version="1.0" encoding="no-such"?><annotation/>',
        b'<?xml version="1.0" encoding="gbk"?>' + b"<annotation>\xff\xff</annotation>",
        "<annotation><object><name>H\xfcndchen</name></object></annotation>".encode("latin-1"),
        b"",
        b"<annotation>" * 100_000,
    ],
)
def test_an_xml_that_cannot_be_decoded_is_named(tree, data):
    (tree / "Annotations/a.xml").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.xml"):
        VocDetection(root=str(tree), split="train")
