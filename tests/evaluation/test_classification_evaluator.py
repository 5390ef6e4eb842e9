"""Accuracies worked by hand, ranks, and what does not fit."""

import csv
import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from detlite.errors import DataError
from detlite.evaluation import ClassificationEvaluator, classification_evaluator

# Six images of three classes, and which class each is taken for, then the second best.
CLASSES = [0, 0, 0, 1, 1, 2]
ANSWERS = [(0, 1), (0, 2), (1, 0), (1, 0), (2, 0), (0, 1)]


def dataset(classes=CLASSES, names=("cat", "dog", "horse")):
    ids = [f"{i}.jpg" for i in range(len(classes))]
    return SimpleNamespace(
        name="pets", class_names=names, image_ids=ids, classes=np.array(classes, np.int64)
    )


def outputs(answers=ANSWERS, num_classes=3):
    found = []
    for first, second in answers:
        scores = torch.full((num_classes,), 0.1)
        scores[first], scores[second] = 0.6, 0.3
        found.append({"scores": scores})
    return found


def inputs(images=range(6)):
    return [{"image_id": f"{i}.jpg"} for i in images]


def test_the_numbers_by_hand(tmp_path, caplog):
    caplog.set_level(logging.INFO, "detlite")
    evaluator = ClassificationEvaluator(dataset=dataset(), output_dir=tmp_path / "out", topk=2)
    evaluator.process(inputs(), outputs())
    # Cats 2 of 3, dogs 1 of 2, the horse not; among the two best also the third cat.
    expected = {"top1": 50.0, "top2": 100 * 4 / 6, "mean_class": (200 / 3 + 50) / 3}
    expected |= {"top1-cat": 200 / 3, "top1-dog": 50.0, "top1-horse": 0.0}
    assert evaluator.evaluate()["classification"] == pytest.approx(expected)
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert written["classification"] == pytest.approx(expected)
    assert written["num_images"] == 6
    rows = list(csv.reader((tmp_path / "out/confusion.csv").read_text().splitlines()))
    assert rows == [
        ["class", "cat", "dog", "horse", "no answer"],
        ["cat", "2", "1", "0", "0"],
        ["dog", "0", "1", "1", "0"],
        ["horse", "1", "0", "0", "0"],
    ]
    assert "| horse   | cat         | 1       | 100.0 %" in caplog.text
    picture = cv2.imread(str(tmp_path / "out/confusion.png"))
    assert min(picture.shape[:2]) > 3 * 64
    assert len(np.unique(picture)) > 10


@pytest.mark.parametrize(("num_classes", "named"), [(5, False), (6, True)])
def test_the_top_five_of_five_classes_are_left_out(num_classes, named):
    names = tuple("abcdef"[:num_classes])
    evaluator = ClassificationEvaluator(dataset=dataset([0, 1], names))
    evaluator.process(inputs(range(2)), outputs([(1, 2), (1, 0)], num_classes))
    metrics = evaluator.evaluate()["classification"]
    assert metrics["top1"] == 50.0
    assert ("top5" in metrics) is named
    # Classes without an image have no accuracy, and the mean is over the others.
    assert np.isnan(metrics["top1-c"])
    assert metrics["mean_class"] == 50.0


def test_images_of_all_ranks_count_once(monkeypatch):
    ranks = []
    for images in ([0, 1, 2, 0], [3, 4, 5, 0]):
        evaluator = ClassificationEvaluator(dataset=dataset())
        # That the second one takes image 0 for a horse changes nothing, the first one saw it too.
        answers = [ANSWERS[i] for i in images[:3]] + [(2, 1)]
        evaluator.process(inputs(images), outputs(answers))
        ranks.append(evaluator._by_image)
    monkeypatch.setattr(classification_evaluator, "gather_objects", lambda _: ranks)
    assert evaluator.evaluate()["classification"]["top1"] == 50.0


def test_images_without_an_answer_count_as_wrong(caplog, tmp_path):
    evaluator = ClassificationEvaluator(dataset=dataset(), output_dir=tmp_path)
    found = outputs()
    found[0]["scores"][1] = float("nan")
    evaluator.process(inputs(range(5)), found[:5])
    assert evaluator.evaluate()["classification"]["top1"] == pytest.approx(100 * 2 / 6)
    assert "1 of the 6 images of 'pets' were not seen, e.g. '5.jpg'" in caplog.text
    assert "1 of the 6 images of 'pets' have scores that are NaN or infinite, e.g. '0.jpg'" in (
        caplog.text
    )
    assert json.loads((tmp_path / "results.json").read_text())["confusion"][0] == [1, 1, 0, 1]
    evaluator.reset()
    evaluator.process(inputs(), outputs())
    assert evaluator.evaluate()["classification"]["top1"] == 50.0


def test_of_equal_scores_the_first_class_counts():
    evaluator = ClassificationEvaluator(dataset=dataset([0, 1]))
    evaluator.process(inputs(range(2)), [{"scores": torch.full((3,), 1 / 3)}] * 2)
    assert evaluator.evaluate()["classification"]["top1"] == 50.0


@pytest.mark.parametrize(
    ("entry", "scores", "message"),
    [
        ({"image_id": "9.jpg"}, torch.rand(3), "image '9.jpg' is not in data set 'pets' of 6"),
        ({"image_id": "0.jpg"}, torch.rand(4), r"must have shape \(3,\).*trained on other classes"),
    ],
)
def test_what_is_of_another_data_set_is_refused(entry, scores, message):
    with pytest.raises(DataError, match=message):
        ClassificationEvaluator(dataset=dataset()).process([entry], [{"scores": scores}])
