"""ImageNet's layouts: class folders, Kaggle's flat validation images, the words of its classes."""

import pytest

from detlite.data.datasets import ImageNet
from detlite.errors import DataError

TRAIN = ["train/n02/b.JPEG", "train/n02/a.JPEG", "train/n01/c.JPEG", "train/n03/d.JPEG"]
WORDS = "n01 tench, Tinca tinca\nn02 crane\nn03 crane\n"
SOLUTION = "ImageId,PredictionString\nv1,n03 85 1 499 272\nv2,n01 1 2 3 4 n01 5 6 7 8\nv3,n02 1\n"


@pytest.fixture
def tree(class_folders):
    return class_folders(dict.fromkeys(TRAIN, (4, 6)))


def test_classes_are_numbered_by_their_ids(tree):
    found = ImageNet(folder=str(tree))
    assert found.class_names == ("n01", "n02", "n03")
    assert list(found.image_ids) == ["n01/c.JPEG", "n02/a.JPEG", "n02/b.JPEG", "n03/d.JPEG"]
    assert found.classes.tolist() == [0, 1, 1, 2]
    assert found.name == "imagenet_train"


def test_classes_are_called_by_their_words_and_two_cranes_are_told_apart(tree):
    (tree / "LOC_synset_mapping.txt").write_text(WORDS)
    expected = ("tench, Tinca tinca", "crane (n02)", "crane (n03)")
    assert ImageNet(folder=str(tree)).class_names == expected
    assert ImageNet(folder=str(tree), classes=["n03", "n01"]).class_names == ("crane", expected[0])


def test_a_flat_val_takes_its_classes_from_the_solution(tree, class_folders, tmp_path):
    class_folders(dict.fromkeys([f"val/v{i}.JPEG" for i in (1, 2, 3)], (4, 6)))
    with pytest.raises(DataError, match=r"has no class folders, and there is no '.*LOC_val_solu"):
        ImageNet(folder=str(tree), split="val")
    (tmp_path / "LOC_val_solution.csv").write_text(SOLUTION)
    found = ImageNet(folder=str(tree), split="val", annotations=str(tmp_path))
    assert found.class_names == ("n01", "n02", "n03")
    assert found.classes.tolist() == [2, 0, 1]
    (tmp_path / "LOC_val_solution.csv").write_text(SOLUTION.replace("v2", "v9"))
    with pytest.raises(DataError, match=r"does not say the classes of 1 of the 3 .* 'v2.JPEG'"):
        ImageNet(folder=str(tree), split="val", annotations=str(tmp_path))


def test_val_in_class_folders_has_the_classes_of_train(tree, class_folders):
    class_folders({"val/n03/x.JPEG": (4, 6), "val/n01/y.JPEG": (4, 6)})
    with pytest.raises(DataError, match=r"has no image of 1 of the 3 classes, such as 'n02'"):
        ImageNet(folder=str(tree), split="val")
    assert len(ImageNet(folder=str(tree), split="val", classes=["n01", "n03"])) == 2
