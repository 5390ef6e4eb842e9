"""Precision, recall and F1 at the score that suits a class best."""

import math

import pytest

from detlite.evaluation import coco_box_metrics


def scene(objects, found):
    """One image with boxes of 10 x 10 that meet only where their x is the same."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": k, "bbox": [x, 0, 10, 10], "iscrowd": crowd}
            for i, (x, k, crowd) in enumerate(objects, start=1)
        ],
    }
    results = [
        {"image_id": 1, "category_id": k, "bbox": [x, 0, 10, 10], "score": score}
        for x, k, score in found
    ]
    return truth, results


def best(objects, found):
    """Score, precision, recall and F1 of both classes."""
    points = coco_box_metrics(*scene(objects, found)).best_points
    return [(p.score, p.precision, p.recall, p.f1) for p in points.values()]


THREE = [(0, 1, 0), (100, 1, 0), (200, 1, 0)]


def test_a_case_worked_by_hand():
    # True, false, true, false by falling score; the third object is not found.
    found = [(0, 1, 0.9), (500, 1, 0.8), (100, 1, 0.7), (600, 1, 0.6)]
    cat, dog = best([*THREE, (300, 2, 0)], found)
    # F1 after each: 2 * 1 / (1 + 3), 2 / (2 + 3), 4 / (3 + 3), 4 / (4 + 3)
    assert cat == pytest.approx((0.7, 200 / 3, 200 / 3, 200 / 3))
    assert math.isnan(dog[0])
    assert dog[1:] == (0, 0, 0)


def test_equal_scores_are_kept_or_dropped_together():
    # Without ties the best point would lie between the true and the false one.
    cat, _ = best(THREE, [(0, 1, 0.5), (500, 1, 0.5)])
    assert cat == pytest.approx((0.5, 50, 100 / 3, 40))


def test_of_equal_f1_the_highest_threshold_is_taken():
    # 2 * 1 / (1 + 1) falls, 2 * 1 / (2 + 1) and so on: the first alone is best.
    objects = [(0, 1, 0), (100, 1, 0)]
    # F1: 2 / 3, 2 / 4, 2 / 5, 4 / 6
    found = [(0, 1, 0.9), (500, 1, 0.8), (600, 1, 0.7), (100, 1, 0.6)]
    assert best(objects, found)[0] == pytest.approx((0.9, 100, 50, 200 / 3))


def test_crowds_and_what_lies_in_them_do_not_count():
    found = [(0, 1, 0.9), (100, 1, 0.8)]
    assert best([(0, 1, 0), (100, 1, 1)], found)[0] == pytest.approx((0.9, 100, 100, 100))


def test_a_class_without_objects_has_no_point():
    assert all(math.isnan(value) for value in best(THREE, [(0, 2, 0.5)])[1])


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_best_of_all_thresholds_tried_one_by_one(case, seed):
    truth, results = case.random(seed)
    points = coco_box_metrics(truth, results).best_points
    for category, point in points.items():
        counted = [a for a in truth["annotations"]
                   if a["category_id"] == category and not a["iscrowd"]]  # fmt: skip
        tried = {}
        for threshold in sorted({r["score"] for r in results}):
            kept = [r for r in results if r["score"] >= threshold]
            # Its AR at IoU 0.5 is recall; the AP of a class of one point is no precision, so count.
            found, total = count_by_greed(truth, kept, category)
            tried[threshold] = 2 * found / (total + len(counted)) if counted else math.nan
        best = max(tried.values())
        assert point.f1 == pytest.approx(100 * best)
        if best > 0:
            assert point.score == max(t for t, value in tried.items() if value == best)


def count_by_greed(truth, results, category):
    """True detections and all that count, matched in the plainest way, image by image."""
    true = total = 0
    for image in truth["images"]:
        objects = [a for a in truth["annotations"]
                   if (a["image_id"], a["category_id"]) == (image["id"], category)]  # fmt: skip
        here = [r for r in results
                if (r["image_id"], r["category_id"]) == (image["id"], category)]  # fmt: skip
        free = [a for a in objects if not a["iscrowd"]]
        for result in sorted(here, key=lambda r: -r["score"]):
            near = [a for a in free if iou(result["bbox"], a["bbox"], False) >= 0.5]
            if near:
                free.remove(max(near, key=lambda a: iou(result["bbox"], a["bbox"], False)))
                true, total = true + 1, total + 1
            elif not any(
                a["iscrowd"] and iou(result["bbox"], a["bbox"], True) >= 0.5 for a in objects
            ):
                total += 1
    return true, total


def iou(a, b, crowd):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - shared)
