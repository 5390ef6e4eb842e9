"""Rows of the last layer stay with their classes."""

import pytest
import torch
import torchvision

from detlite.checkpoint import class_names_of
from detlite.checkpoint.interop import recognize
from detlite.errors import CheckpointError

CLASSES = ["cat", "dog", "cow"]


COCO = torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


@pytest.mark.parametrize("anchors", ["[1.0]", "[0.5, 1.0, 2.0]"])
def test_class_rows_are_kept_by_name(
    detlite_content, anchors, narrow_model, narrow_config, load, log
):
    ratios = f"model.anchor_generator.aspect_ratios={anchors}"
    model = narrow_model(CLASSES, ratios)
    content = detlite_content(model, narrow_config(ratios))
    loaded = load(content, ["horse", "cow", "cat", "sheep"], ratios)
    theirs = model.head.cls_score.weight.unflatten(0, (-1, 3))
    ours = loaded.head.cls_score.weight.unflatten(0, (-1, 4))
    assert torch.equal(ours[:, 1], theirs[:, 2])
    assert torch.equal(ours[:, 2], theirs[:, 0])
    biases = loaded.head.cls_score.bias.unflatten(0, (-1, 4))
    assert torch.equal(biases[:, 1], model.head.cls_score.bias.unflatten(0, (-1, 3))[:, 2])
    # New classes begin with the prior, log(0.01 / 0.99).
    torch.testing.assert_close(biases[:, [0, 3]], torch.full_like(biases[:, [0, 3]], -4.59512))
    assert ours[:, [0, 3]].abs().max() < 0.06
    note = "2 kept (cow, cat), 2 new (horse, sheep), 1 of the file's 3 not used"
    assert f"class rows by name: {note}" in log.text
    head = [line.split() for line in log.text.splitlines() if line.startswith("head")]
    assert head == [["head", "6", "2", "0", "0", "0"], ["head", "100.0", "%"]]
    assert torch.equal(loaded.head.box_pred.weight, model.head.box_pred.weight)


def test_class_names_are_the_same_however_they_join_their_words(
    detlite_content, narrow_model, narrow_config, load, log
):
    model = narrow_model(["stop_sign", "Stop Sign", "traffic_light"])
    content = detlite_content(model, narrow_config())
    loaded = load(content, ["traffic light", "Stop Sign"], complete=True)
    theirs = model.head.cls_score.bias.unflatten(0, (9, 3))
    assert torch.equal(loaded.head.cls_score.bias.unflatten(0, (9, 2)), theirs[:, [2, 1]])


def test_class_rows_of_no_shape_are_left(detectron2_state, narrow_model, load, log):
    state = detectron2_state(narrow_model(CLASSES))
    for value in (torch.tensor(1.0), torch.zeros(0), torch.zeros(27, 1)):
        load(state | {"head.cls_score.bias": value}, CLASSES)
        assert "other shape: head.cls_score.bias" in log.text
        log.clear()


def test_classes_in_another_order_are_put_in_order(
    detlite_content, narrow_model, narrow_config, load, log
):
    model = narrow_model(CLASSES)
    loaded = load(detlite_content(model, narrow_config()), CLASSES[::-1], complete=True)
    theirs = model.head.cls_score.weight.unflatten(0, (9, 3))
    assert torch.equal(loaded.head.cls_score.weight, theirs.flip(1).flatten(0, 1))
    assert "3 kept (cow, dog, cat), 0 new (none)" in log.text


def test_a_class_without_a_row_is_an_error_for_a_model_that_is_not_trained(
    detlite_content, narrow_model, narrow_config, load
):
    content = detlite_content(narrow_model(CLASSES), narrow_config())
    with pytest.raises(CheckpointError, match="knows no horse: without training"):
        load(content, [*CLASSES, "horse"], complete=True)


def test_rows_without_names_are_taken_in_order_and_it_is_told(
    detectron2_state, narrow_model, load, log
):
    model = narrow_model(CLASSES)
    loaded = load(detectron2_state(model), ["x", "y", "z"], complete=True)
    assert torch.equal(loaded.head.cls_score.weight, model.head.cls_score.weight)
    assert "all 3 taken in order, since the file does not name its classes" in log.text


def test_rows_without_names_of_another_number_are_made_new(
    detectron2_state, narrow_model, load, log
):
    loaded = load(detectron2_state(narrow_model(CLASSES)), ["x", "y"])
    torch.testing.assert_close(loaded.head.cls_score.bias, torch.full((18,), -4.59512))
    assert "other shape: head.cls_score.weight, head.cls_score.bias" in log.text


def test_the_config_can_name_the_rows(detectron2_state, narrow_model, load):
    model = narrow_model(CLASSES)
    names = "model.weights_class_names=[x, y, z]"
    loaded = load(detectron2_state(model), ["z", "x"], names, complete=True)
    theirs = model.head.cls_score.bias.unflatten(0, (9, 3))
    assert torch.equal(loaded.head.cls_score.bias.unflatten(0, (9, 2)), theirs[:, [2, 0]])
    with pytest.raises(CheckpointError, match=r"has 2 names, and .* has rows for 3 classes"):
        load(detectron2_state(model), ["z", "x"], "model.weights_class_names=[x, y]")


@pytest.mark.parametrize("num_theirs", [80, 91])
def test_80_or_91_rows_without_names_are_cocos(
    detectron2_state, num_theirs, narrow_model, load, log
):
    slots = COCO if num_theirs == 91 else [n for n in COCO if n not in ("__background__", "N/A")]
    model = narrow_model([f"slot {i}" for i in range(num_theirs)])
    state = detectron2_state(model)
    loaded = load(state, ["toothbrush", "person", "cone"])
    theirs = model.head.cls_score.bias.unflatten(0, (9, num_theirs))
    ours = loaded.head.cls_score.bias.unflatten(0, (9, 3))
    assert torch.equal(ours[:, 0], theirs[:, slots.index("toothbrush")])
    assert torch.equal(ours[:, 1], theirs[:, slots.index("person")])
    assert f"2 kept (toothbrush, person), 1 new (cone), {num_theirs - 2} of the file's" in log.text
    names = class_names_of(recognize(state, "file").weights, None)
    assert len(names) == 80
    assert (names[0], names[-1]) == ("person", "toothbrush")


def test_as_many_rows_of_other_anchors_and_classes_are_not_taken(
    detlite_content, narrow_model, narrow_config, load, log
):
    # 9 anchors for 2 classes there, 6 for 3 here.
    model = narrow_model(CLASSES[:2])
    ratios = "model.anchor_generator.aspect_ratios=[0.5, 2.0]"
    loaded = load(detlite_content(model, narrow_config()), CLASSES, ratios)
    assert loaded.head.cls_score.weight.shape == model.head.cls_score.weight.shape
    torch.testing.assert_close(loaded.head.cls_score.bias, torch.full((18,), -4.59512))
    assert "other shape: head.cls_score.weight" in log.text
