"""ImageFolder against torchvision's, lists of every form, and what is refused."""

import logging
import os
from pathlib import Path

import pytest
import torchvision

from detlite import load_config
from detlite.data import DATASET_REGISTRY, build_datasets
from detlite.data.datasets import ImageFolder
from detlite.errors import DataError

FILES = dict.fromkeys(
    ["dog/b.png", "dog/a.png", "cat/deep/z.png", "cat/y.png", "cat/a b/x.png", "ape/1.png"], (4, 6)
)


@pytest.fixture
def photos(class_folders):
    folder = class_folders(FILES)
    (folder / "dog/notes.txt").write_text("no image")
    (folder / ".trash").mkdir()
    (folder / "cat/.hidden.png").write_bytes(b"")
    return folder


def write_list(folder, text):
    path = folder / "list.txt"
    path.write_text(text)
    return str(path)


def test_class_folders_are_read_as_torchvision_reads_them(photos, caplog):
    caplog.set_level(logging.INFO, "detlite")
    found = ImageFolder(folder=str(photos))
    # torchvision takes hidden files and folders too, and would fail at reading them.
    (photos / ".trash").rmdir()
    (photos / "cat/.hidden.png").unlink()
    expected = torchvision.datasets.ImageFolder(str(photos))
    assert list(found.class_names) == expected.classes == ["ape", "cat", "dog"]
    samples = [(found.file_name(i), int(found[i]["class"])) for i in range(len(found))]
    assert samples == expected.samples
    assert found.name == "photos"
    assert "2 files and folders that are hidden or no images are skipped" in caplog.text


def test_classes_can_be_chosen_in_another_order(photos, caplog):
    caplog.set_level(logging.INFO, "detlite")
    found = ImageFolder(folder=str(photos), classes=["dog", "ape"], title="pets")
    assert (found.class_names, found.classes.tolist()) == (("dog", "ape"), [1, 0, 0])
    assert "pets: 3 images of other classes left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "names", "classes"),
    [
        ("cat/y.png\n\n./dog/a.png\n", {}, ("ape", "cat", "dog"), [1, 2]),
        ("dog/a.png\tbig dog\ncat/a b/x.png\tcat\n", {}, ("big dog", "cat"), [0, 1]),
        ("cat/a b/x.png cat\ndog/a.png dog\n", {}, ("cat", "dog"), [0, 1]),
        ("dog/a.png 2\ncat/y.png 0\n", {}, ("0", "1", "2"), [2, 0]),
        ("dog/a.png 1\ncat/y.png 0\n", {"classes": ["c", "d"]}, ("c", "d"), [1, 0]),
        ("dog/a.png d\ncat/y.png c\n", {"classes": ["d"]}, ("d",), [0]),
        ("dog/a.png 1\ncat/y.png 0\n", {"unlabelled": True}, ("image",), [0, 0]),
    ],
)
def test_a_list_gives_paths_and_classes(photos, text, options, names, classes):
    path = write_list(photos, text)
    found = ImageFolder(folder=str(photos), list_file=path, **options)
    assert found.class_names == names
    assert found.classes.tolist() == classes
    assert found.name == "list"


def test_unlabelled_images_are_one_class(photos):
    found = ImageFolder(folder=str(photos), unlabelled=True)
    assert found.class_names == ("image",)
    assert sorted(found.image_ids) == sorted(FILES)
    assert found[0]["class"].item() == 0


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"folder": "nowhere"}, None, "there is no image folder '.*nowhere'.*DETLITE_DATASETS"),
        ({"folder": "dog"}, None, "has no class folders.*list_file.*unlabelled: true"),
        ({"classes": ["dig"]}, None, "class 'dig' is not in .*did you mean 'dog'"),
        ({"classes": ["dog", "dog"]}, None, "each once"),
        ({"classes": ["dog"], "unlabelled": True}, None, "unlabelled images have no `classes`"),
        ({"list_file": "none.txt"}, None, "cannot read the list '.*none.txt'.*DETLITE_DATASETS"),
        ({}, "\n", "names no image"),
        ({}, "dog\n", "line 1 must be a path and a class, got 'dog'"),
        ({}, "dog/a.png d\ndog/a.png d\n", "names the image 'dog/a.png' more than once"),
        # Without a tab the last word is the class, and such a file is not there.
        ({}, "dog/a.png big dog\n", "1 of the 1 images .*: dog/a.png big$"),
        ({}, "dog/q.png dog\n", "1 of the 1 images that .* names are not in .*: dog/q.png"),
        ({"classes": ["c"]}, "dog/a.png 1\n", "has class number 1, but `classes` names 1"),
        ({}, "top.png\n", "gives no class for 'top.png', which lies in no class folder"),
    ],
)
def test_what_does_not_fit_is_refused(photos, class_folders, options, text, message):
    class_folders({"top.png": (4, 6)})
    options = dict(options)
    if text is not None:
        options["list_file"] = write_list(photos, text)
    elif "list_file" in options:
        options["list_file"] = str(photos / options["list_file"])
    folder = str(photos / options.pop("folder", ""))
    with pytest.raises(DataError, match=message):
        ImageFolder(folder=folder, **options)


def test_an_empty_class_folder_is_an_error_unless_other_classes_are_chosen(photos):
    (photos / "yak").mkdir()
    with pytest.raises(DataError, match=r"1 class folders in .* have no image: yak"):
        ImageFolder(folder=str(photos))
    assert len(ImageFolder(folder=str(photos), classes=["ape", "cat", "dog"])) == 6


@pytest.mark.datasets
def test_the_splits_of_trashnet_have_the_images_that_its_readme_counts(datasets_dir):
    config = load_config("configs/classification/resnet18_trashnet150.yaml")
    train, val = (
        build_datasets(blocks, "data")[0] for blocks in (config.data.train, config.data.test)
    )
    assert (
        train.class_names
        == val.class_names
        == tuple((datasets_dir / "trashnet150/classes.txt").read_text().split())
    )
    counts = [[int((d.classes == k).sum()) for k in range(6)] for d in (train, val)]
    assert counts == [[354, 403, 287, 347, 286, 91], [65, 83, 46, 61, 56, 17]]
    block = {"name": "ImageFolder", "folder": "trashnet150/images"}
    assert len(DATASET_REGISTRY.build(block)) == 2527


def test_file_names_may_hold_any_bytes(class_folders):
    name = os.fsdecode(b"cat/caf\xe9.png")
    dataset = ImageFolder(folder=str(class_folders({name: (8, 9), "dog/a.png": (8, 9)})))
    assert list(dataset.file_names) == [name, "dog/a.png"]
    assert dataset[0]["image"].shape == (3, 8, 9)


@pytest.mark.parametrize("number", ["25000", "99999999999999999999", "9" * 5000])
def test_a_class_number_beyond_all_reason_is_refused_at_once(photos, number):
    path = write_list(photos, f"dog/b.png {number}\n")
    with pytest.raises(DataError, match=r"has class number .*at most 25000") as caught:
        ImageFolder(folder=str(photos), list_file=path)
    assert len(str(caught.value)) < 500


def test_backslashes_of_a_list_separate_folders(photos):
    (name,) = [str(p.relative_to(photos)) for p in sorted(photos.rglob("*.png"))][:1]
    path = write_list(photos, name.replace("/", "\\") + " 0\n")
    assert ImageFolder(folder=str(photos), list_file=path).file_names[:] == [name]


def test_a_list_in_another_encoding_is_read_or_named(photos):
    (name,) = [str(p.relative_to(photos)) for p in sorted(photos.rglob("*.png"))][:1]
    path = write_list(photos, "")
    Path(path).write_text(f"{name}\tH\xfcndchen\n", encoding="utf-16")
    assert ImageFolder(folder=str(photos), list_file=path).class_names == ("H\xfcndchen",)
    Path(path).write_text(f"{name}\tH\xfcndchen\n", encoding="latin-1")
    with pytest.raises(DataError, match="not UTF-8 text: line 1"):
        ImageFolder(folder=str(photos), list_file=path)
