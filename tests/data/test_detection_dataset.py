import logging

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from detlite.data.detection_dataset import DetectionDataset
from detlite.errors import DataError


@pytest.fixture
def make_dataset(tmp_path):
    Image.new("RGB", (20, 10), (250, 0, 0)).save(tmp_path / "a.png")

    def make(boxes, **changes):
        arguments = {
            "folder": tmp_path,
            "name": "example",
            "categories": {"cat": 4, "dog": 90},
            "image_ids": [7],
            "file_names": ["a.png"],
            "sizes": [(10, 20)],
            "box_images": [0] * len(boxes),
            "boxes_xywh": boxes,
            "classes": [i % 2 for i in range(len(boxes))],
        }
        return DetectionDataset(**{**arguments, **changes})

    return make


def test_a_sample_has_the_image_and_what_to_train_on(make_dataset, tmp_path):
    sample = make_dataset([[1, 2, 3, 4], [5, 6, 7.5, 2]], difficult=[0, 1])[0]
    assert sample["image"].shape == (3, 10, 20)
    assert sample["image"].dtype == torch.uint8
    assert sample["boxes"].tolist() == [[1, 2, 4, 6], [5, 6, 12.5, 8]]
    assert sample["boxes"].dtype == torch.float32
    assert sample["classes"].tolist() == [0, 1]
    assert sample["classes"].dtype == torch.int64
    assert sample["difficult"].tolist() == [False, True]
    assert (sample["image_id"], sample["height"], sample["width"]) == (7, 10, 20)
    assert sample["file_name"] == str(tmp_path / "a.png")


def test_crowds_and_degenerate_boxes_are_not_trained_on_and_others_are_clipped(make_dataset):
    boxes = [[1, 1, 5, 5], [1, 1, 0, 5], [-3, 5, 100, 100], [30, 1, 2, 2]]
    sample = make_dataset(boxes, crowd=[1, 0, 0, 0])[0]
    assert sample["boxes"].tolist() == [[0, 5, 20, 10]]
    assert sample["classes"].tolist() == [0]


def test_an_image_without_boxes_has_empty_tensors(make_dataset):
    sample = make_dataset([])[0]
    assert sample["boxes"].shape == (0, 4)
    assert sample["classes"].shape == sample["difficult"].shape == (0,)


def test_degenerate_boxes_are_told_once_by_file_and_annotation(make_dataset, caplog):
    dataset = make_dataset([[1, 1, 0, 5], [1, 1, 2, 2]], annotation_ids=[812, 5])
    dataset[0]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    for part in ("example", "a.png: annotation 812", "'cat'", "1, 1, 0, 5", "20 x 10"):
        assert part in caplog.text
    assert "annotation 5" not in caplog.text


def test_of_many_degenerate_boxes_the_first_twenty_are_told(make_dataset, caplog):
    make_dataset([[1, 1, 0, 5]] * 23)
    assert caplog.text.count("a.png") == 20
    assert "and 3 more" in caplog.text


def test_boxes_in_order_are_not_told_of(make_dataset, caplog):
    make_dataset([[1, 1, 2, 2]])
    assert not caplog.records


@pytest.mark.parametrize(("sizes", "hint"), [([(20, 10)], True), ([(11, 20)], False)])
def test_another_size_than_the_annotations_say_is_an_error(make_dataset, tmp_path, sizes, hint):
    with pytest.raises(DataError) as caught:
        make_dataset([], sizes=sizes)[0]
    message = str(caught.value)
    assert str(tmp_path / "a.png") in message
    assert "height 10 and width 20" in message
    assert f"height {sizes[0][0]} and width {sizes[0][1]}" in message
    assert ("EXIF" in message) == hint


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_size_is_compared_before_the_image_is_decoded(
    make_dataset, tmp_path, monkeypatch, suffix
):
    name = f"b.{suffix}"
    Image.new("RGB", (20, 10)).save(tmp_path / name)
    monkeypatch.setattr("cv2.imdecode", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(DataError, match="height 10 and width 20"):
        make_dataset([], file_names=[name], sizes=[(11, 20)]).read_image(0)


def test_a_turned_photograph_fits_annotations_of_the_upright_image(make_dataset, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    sample = make_dataset([[1, 1, 5, 15]], file_names=["a.jpg"], sizes=[(20, 10)])[0]
    assert sample["image"].shape == (3, 20, 10)
    assert sample["boxes"].tolist() == [[1, 1, 6, 16]]


@pytest.mark.parametrize("i", [-1, 1])
def test_an_index_out_of_range_ends_iteration(make_dataset, i):
    with pytest.raises(IndexError, match="1 images of example"):
        make_dataset([])[i]


def test_workers_of_a_loader_give_the_same_samples(make_dataset):
    dataset = make_dataset([[1, 2, 3, 4]])
    (sample,) = DataLoader(dataset, batch_size=None, num_workers=1)
    assert torch.equal(sample["image"], dataset[0]["image"])
    assert torch.equal(sample["boxes"], dataset[0]["boxes"])
