"""Limits of the number of detections, and the AP that they leave within reach."""

import logging

import pytest

from detlite.evaluation.coco_arrays import coco_arrays
from detlite.evaluation.coco_metrics import evaluate_boxes


def crowded(num_objects, num_detections):
    boxes = [[10 * i, 0, 8, 8] for i in range(num_objects)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - i / 1000}
        for i, box in enumerate(boxes[:num_detections])
    ]
    return coco_arrays(truth, results)


@pytest.mark.parametrize(
    ("num_detections", "limit", "keys"),
    [
        (300, 100, ["evaluator's max_detections", "model.postprocessor"]),
        (100, 300, ["COCOEvaluator", "model's model.postprocessor.max_detections"]),
    ],
)
def test_a_limit_is_told_with_the_ap_that_it_leaves_and_the_keys(
    caplog, num_detections, limit, keys
):
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate_boxes(crowded(300, num_detections), max_detections=(1, 10, limit))
    reached = evaluation.metrics.summary["AP"]
    assert reached == pytest.approx(100 * 34 / 101)
    for fact in (f"{reached:.2f}", "300 objects", "100 can be found", *keys):
        assert fact in caplog.text


def test_limits_that_suffice_are_not_told(caplog):
    with caplog.at_level(logging.WARNING):
        for num_objects, num_detections in ((0, 0), (100, 100), (300, 300), (300, 0)):
            evaluate_boxes(crowded(num_objects, num_detections), max_detections=(1, 10, 300))
    assert caplog.text == ""
