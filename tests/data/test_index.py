import json
import pickle

import numpy as np
import pytest

from detlite import DataError
from detlite.data.index import DetectionIndex, PackedStrings


def make_index(**changes):
    arguments = {
        "name": "example",
        "categories": {"cat": 4, "dog": 90},
        "image_ids": [7, 3, 5],
        "file_names": ["a.jpg", "sub/b.jpg", "ü.jpg"],
        "sizes": [(10, 20), (30, 40), (50, 60)],
        "box_images": [2, 0, 2],
        "boxes_xywh": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11.5, 12]],
        "classes": [1, 0, 0],
    }
    return DetectionIndex(**{**arguments, **changes})


def test_boxes_are_sorted_by_image_and_keep_their_order_within_one():
    index = make_index(annotation_ids=[30, 10, 20])
    assert index.offsets.tolist() == [0, 1, 1, 3]
    assert index.annotation_ids.tolist() == [10, 30, 20]
    assert index.classes.tolist() == [0, 1, 0]
    assert index.boxes_xywh.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4], [9, 10, 11.5, 12]]


def test_types_are_those_that_evaluators_rely_on():
    index = make_index()
    types = {
        name: getattr(index, name).dtype.name
        for name in vars(index)
        if name.endswith("s") and isinstance(getattr(index, name), np.ndarray)
    }
    assert types == {
        "category_ids": "int64",
        "heights": "int32",
        "widths": "int32",
        "offsets": "int64",
        "classes": "int64",
        "areas": "float64",
        "annotation_ids": "int64",
    }
    assert (index.boxes_xywh.dtype, index.crowd.dtype, index.difficult.dtype) == (float, bool, bool)
    assert index.class_names == ("cat", "dog")
    assert len(index) == 3


def test_missing_columns_have_defaults():
    index = make_index()
    assert index.areas.tolist() == [56, 12, 138]
    assert not index.crowd.any()
    assert not index.difficult.any()
    assert sorted(index.annotation_ids.tolist()) == [1, 2, 3]


@pytest.mark.parametrize("ids", [[7, 3, 5], ["x", "y", "z"]])
def test_image_ids_come_back_as_plain_values_that_json_can_write(ids):
    index = make_index(image_ids=ids)
    assert json.dumps(list(index.image_ids)) == json.dumps(ids)
    assert index.image_ids[1] == ids[1]


@pytest.mark.parametrize(
    "box",
    [
        [1, 1, 0, 5],
        [1, 1, 5, -5],
        [float("nan"), 1, 5, 5],
        [1, 1, float("inf"), 5],
        [20, 1, 5, 5],
        [-9, 1, 9, 5],
        [1, 1, 1e-9, 5],
    ],
)
def test_degenerate_boxes_are_marked_and_kept_as_they_are(box):
    index = make_index(box_images=[0, 0], boxes_xywh=[box, [1, 1, 5, 5]], classes=[0, 0])
    assert index.degenerate.tolist() == [True, False]
    assert index.boxes_xywh[0].tolist() == pytest.approx(box, nan_ok=True)
    assert index.num_training_boxes().tolist() == [1, 0, 0]


def test_crowds_do_not_count_for_training():
    assert make_index(crowd=[1, 0, 0]).num_training_boxes().tolist() == [1, 0, 1]


def test_boxes_are_clipped_to_their_image():
    index = make_index(box_images=[1], boxes_xywh=[[-5, 20, 100, 100]], classes=[0])
    assert index.clipped_boxes(1).tolist() == [[0, 20, 40, 30]]
    assert index.clipped_boxes(0).shape == (0, 4)


def test_no_boxes_and_no_images_are_fine():
    empty = {"box_images": [], "boxes_xywh": [], "classes": []}
    assert make_index(**empty).offsets.tolist() == [0, 0, 0, 0]
    assert len(make_index(**empty, image_ids=[], file_names=[], sizes=[])) == 0


def test_the_store_has_no_python_object_per_box():
    def num_objects(num_boxes):
        boxes = np.tile([1.0, 1.0, 5.0, 5.0], (num_boxes, 1))
        images = np.zeros(num_boxes, int)
        index = make_index(box_images=images, boxes_xywh=boxes, classes=images)
        held = [value for value in vars(index).values() if not isinstance(value, np.ndarray)]
        assert len(pickle.dumps(index)) < 80 * num_boxes + 5000
        return len(pickle.dumps(held))

    assert num_objects(10) == num_objects(10_000)


def test_packed_strings_are_a_sequence_of_the_strings():
    words = ["", "a", "größer", "b/c.jpg"]
    packed = PackedStrings(words)
    assert list(packed) == words
    assert packed[-1] == "b/c.jpg"
    assert packed[1:3] == words[1:3]
    assert "größer" in packed
    with pytest.raises(IndexError):
        packed[4]


def test_file_names_with_lone_surrogates_survive():
    names = ["caf\udce9.jpg", "\ud800", "plain"]
    assert PackedStrings(names)[:] == names


def test_an_image_id_that_no_file_of_results_can_hold_is_refused():
    with pytest.raises(DataError, match=r"'caf\\udce9' is not UTF-8"):
        DetectionIndex(
            name="x",
            categories={"a": 1},
            image_ids=["caf\udce9"],
            file_names=["a"],
            sizes=[(1, 1)],
            box_images=[],
            boxes_xywh=[],
            classes=[],
        )


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([4, 9], [4, 10, 9, 11]), (["x", "d"], ["x", "b", "d", "d_"]), ([4, 2**70], None)],
)
def test_classes_that_a_renumbered_index_lacks_take_free_ids(ids, expected):
    index = DetectionIndex(
        name="x",
        categories=dict(zip("ac", ids, strict=True)),
        image_ids=[1],
        file_names=["a"],
        sizes=[(9, 9)],
        box_images=[0, 0],
        boxes_xywh=[[0, 0, 1, 1]] * 2,
        classes=[1, 0],
    )
    index.renumber_classes(["a", "b", "c", "d"])
    assert index.classes.tolist() == [2, 0]
    if expected is None:
        expected = [4, 2**70 + 1, 2**70, 2**70 + 2]
    assert index.category_ids.tolist() == expected
