import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from detlite import Instances


@pytest.fixture
def instances():
    return Instances(
        (40, 60),
        pred_boxes=torch.arange(12.0).reshape(3, 4),
        scores=torch.tensor([0.9, 0.5, 0.1]),
        notes=["a", "b", "c"],
    )


def test_fields_are_attributes(instances):
    assert instances.image_size == (40, 60)
    assert len(instances) == 3
    assert instances.scores.tolist() == pytest.approx([0.9, 0.5, 0.1])
    instances.pred_classes = torch.tensor([2, 1, 0])
    assert instances.has("pred_classes")
    assert not instances.has("gt_boxes")
    assert list(instances.get_fields()) == ["pred_boxes", "scores", "notes", "pred_classes"]


def test_an_absent_field_tells_those_that_there_are(instances):
    with pytest.raises(AttributeError, match="no field 'gt_boxes'; fields: pred_boxes, scores"):
        instances.gt_boxes  # noqa: B018
    with pytest.raises(AttributeError, match="fields: none"):
        Instances((4, 4)).scores  # noqa: B018


def test_a_field_of_another_length_is_refused(instances):
    with pytest.raises(ValueError, match="'pred_classes' has 2 entries, the others have 3"):
        instances.pred_classes = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="'scores' has 1 entries, the others have 2"):
        Instances((4, 4), pred_boxes=torch.zeros(2, 4), scores=torch.zeros(1))


def test_the_only_field_may_be_replaced_by_one_of_another_length():
    instances = Instances((4, 4), scores=torch.zeros(3))
    instances.scores = torch.zeros(5)
    assert len(instances) == 5


@pytest.mark.parametrize("name", ["image_size", "to", "cat", "_fields"])
def test_a_field_cannot_take_the_name_of_something_else(name):
    with pytest.raises(ValueError, match=f"no field of Instances can be named '{name}'"):
        Instances((4, 4)).set(name, [1, 2])


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (torch.tensor([True, False, True]), ["a", "c"]),
        (torch.tensor([False, False, False]), []),
        (torch.tensor([2, 0, 0]), ["c", "a", "a"]),
        (torch.tensor([], dtype=torch.int64), []),
        (slice(1, None), ["b", "c"]),
        (slice(None, None, 2), ["a", "c"]),
        (0, ["a"]),
        (-1, ["c"]),
        (-3, ["a"]),
        (torch.tensor(1), ["b"]),
        (torch.tensor([0.1, 0.7, 0.2]).argmax(), ["b"]),
    ],
)
def test_selection_keeps_all_fields_together(instances, item, expected):
    selected = instances[item]
    assert selected.notes == expected
    assert selected.image_size == (40, 60)
    assert selected.pred_boxes.shape == (len(expected), 4)
    numbers = ["abc".index(note) for note in expected]
    assert selected.scores.tolist() == instances.scores[numbers].tolist()


@pytest.mark.parametrize("item", [3, -4])
def test_an_index_out_of_range_is_an_error(instances, item):
    with pytest.raises(IndexError, match=rf"index {item} is out of range for 3 objects"):
        instances[item]


def test_iteration_gives_the_objects_one_by_one(instances):
    parts = list(instances)
    assert [part.notes for part in parts] == [["a"], ["b"], ["c"]]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert list(Instances((4, 4))) == []


def test_cat_joins_what_iteration_took_apart(instances):
    joined = Instances.cat(list(instances))
    assert joined.pred_boxes.tolist() == instances.pred_boxes.tolist()
    assert joined.notes == instances.notes
    assert joined.image_size == instances.image_size


def test_cat_refuses_nothing_and_what_does_not_fit(instances):
    with pytest.raises(ValueError, match="needs at least one"):
        Instances.cat([])
    with pytest.raises(ValueError, match="other image size or fields"):
        Instances.cat([instances, Instances((40, 60), scores=torch.zeros(1))])
    with pytest.raises(ValueError, match="other image size or fields"):
        Instances.cat([Instances((1, 2)), Instances((1, 3))])


def test_to_moves_tensors_and_leaves_the_rest(instances):
    moved = instances.to("meta")
    assert moved.scores.device.type == "meta"
    assert moved.notes == ["a", "b", "c"]
    assert instances.scores.device.type == "cpu"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_equal(instances, duplicate):
    other = duplicate(instances)
    other = pickle.loads(other) if isinstance(other, bytes) else other
    assert other.image_size == (40, 60)
    assert other.pred_boxes.tolist() == instances.pred_boxes.tolist()
    assert other.notes == instances.notes


def test_instances_travel_from_the_workers_of_a_loader(instances):
    loader = DataLoader([instances] * 4, num_workers=2, batch_size=2, collate_fn=list)
    received = [part for batch in loader for part in batch]
    assert len(received) == 4
    for part in received:
        assert part.image_size == (40, 60)
        assert part.pred_boxes.tolist() == instances.pred_boxes.tolist()
        assert part.notes == instances.notes


def test_the_text_tells_size_and_shapes(instances):
    assert repr(instances) == (
        "Instances(3 objects, image_size=(40, 60), pred_boxes: (3, 4), scores: (3,), "
        "notes: ['a', 'b', 'c'])"
    )


def test_instances_without_fields_are_empty():
    empty = Instances((4, 4))
    assert len(empty) == 0
    assert len(empty[torch.zeros(0, dtype=torch.bool)]) == 0


def test_the_fields_are_listed_for_completion(instances):
    assert {"pred_boxes", "scores", "image_size", "to"} <= set(dir(instances))
