"""Which class is taken for which."""

import numpy as np
import pytest

from detlite.evaluation import coco_arrays, confusion, confusion_matrix

CAT, DOG, BACKGROUND = 0, 1, 2


def scene(objects, found):
    """One image; objects are (box, class, crowd), detections (box, class, score)."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": k + 1, "bbox": box, "iscrowd": crowd}
            for i, (box, k, crowd) in enumerate(objects, start=1)
        ],
    }
    results = [
        {"image_id": 1, "category_id": k + 1, "bbox": box, "score": score}
        for box, k, score in found
    ]
    return coco_arrays(truth, results)


def counted(objects, found, **options):
    """The entries that are not zero, as {(row, column): count}."""
    counts = confusion_matrix(scene(objects, found), **options).counts
    return {(int(r), int(c)): int(counts[r, c]) for r, c in zip(*np.nonzero(counts), strict=True)}


A, B, FAR = [0, 0, 10, 10], [100, 0, 10, 10], [500, 0, 10, 10]


def test_a_case_worked_by_hand():
    objects = [(A, CAT, 0), (B, DOG, 0), ([200, 0, 10, 10], DOG, 0)]
    found = [(A, CAT, 0.9), (B, CAT, 0.8), (FAR, DOG, 0.7)]
    assert counted(objects, found) == {
        (CAT, CAT): 1,
        (DOG, CAT): 1,
        (DOG, BACKGROUND): 1,
        (BACKGROUND, DOG): 1,
    }


def test_detections_below_the_score_threshold_are_left_out():
    found = [(A, CAT, 0.5), (FAR, DOG, 0.49)]
    assert counted([(A, CAT, 0)], found) == {(CAT, CAT): 1}
    assert counted([(A, CAT, 0)], found, score_threshold=0.6) == {(CAT, BACKGROUND): 1}


def test_the_better_score_comes_first_whatever_its_class():
    found = [(A, DOG, 0.8), (A, CAT, 0.9)]
    assert counted([(A, CAT, 0)], found) == {(CAT, CAT): 1, (BACKGROUND, DOG): 1}
    found = [(A, DOG, 0.9), (A, CAT, 0.8)]
    assert counted([(A, CAT, 0)], found) == {(CAT, DOG): 1, (BACKGROUND, CAT): 1}


def test_a_detection_takes_the_object_it_overlaps_most_and_of_equals_its_own_class():
    near = [1, 0, 10, 10]
    assert counted([(near, CAT, 0), (A, DOG, 0)], [(A, CAT, 0.9)]) == {
        (DOG, CAT): 1,
        (CAT, BACKGROUND): 1,
    }
    assert counted([(A, DOG, 0), (A, CAT, 0)], [(A, CAT, 0.9)]) == {
        (CAT, CAT): 1,
        (DOG, BACKGROUND): 1,
    }


def test_the_next_best_object_is_taken_where_the_best_is_gone():
    near = [2, 0, 10, 10]
    assert counted([(A, CAT, 0), (near, CAT, 0)], [(A, CAT, 0.9), (A, CAT, 0.8)]) == {(CAT, CAT): 2}


def test_crowds_are_ignored():
    crowd = ([0, 0, 200, 200], CAT, 1)
    inside = [50, 50, 10, 10]
    assert counted([crowd], [(inside, CAT, 0.9), (inside, CAT, 0.8)]) == {}
    assert counted([crowd], [(inside, DOG, 0.9)]) == {(BACKGROUND, DOG): 1}
    assert counted([crowd, (inside, DOG, 0)], [(inside, CAT, 0.9)]) == {(DOG, CAT): 1}


def test_an_iou_on_the_threshold_is_enough():
    half = [0, 0, 10, 5]
    assert counted([(A, CAT, 0)], [(half, CAT, 0.9)]) == {(CAT, CAT): 1}
    assert counted([(A, CAT, 0)], [(half, CAT, 0.9)], iou_threshold=0.51) == {
        (CAT, BACKGROUND): 1,
        (BACKGROUND, CAT): 1,
    }


def test_boxes_without_area_and_empty_sets_are_no_error():
    point = [0, 0, 0, 0]
    assert counted([(point, CAT, 0)], [(point, CAT, 0.9)]) == {
        (CAT, BACKGROUND): 1,
        (BACKGROUND, CAT): 1,
    }
    assert counted([], []) == {}


def test_the_limit_of_detections_holds_for_an_image():
    found = [(FAR, CAT, score) for score in (0.6, 0.9, 0.7)]
    assert counted([], found, max_detections=2) == {(BACKGROUND, CAT): 2}


@pytest.mark.parametrize("seed", range(15))
def test_it_agrees_with_loops(case, seed, monkeypatch):
    monkeypatch.setattr(confusion, "_PAIRS_AT_ONCE", 40)  # several parts
    arrays = coco_arrays(*case.random(seed, num_images=15))
    found = confusion_matrix(arrays, score_threshold=0.3).counts
    assert found.tolist() == by_loops(arrays, 0.3).tolist()
    assert found[:-1].sum() == (arrays.gt_crowd == 0).sum()


def by_loops(arrays, score_threshold):
    """The rule, word by word."""
    k = len(arrays.category_ids)
    counts = np.zeros((k + 1, k + 1), int)
    for image in range(len(arrays.image_ids)):
        objects = np.flatnonzero(arrays.gt_images == image).tolist()
        free = [g for g in objects if not arrays.gt_crowd[g]]
        here = np.flatnonzero((arrays.images == image) & (arrays.scores >= score_threshold))
        for d in here[np.argsort(-arrays.scores[here], kind="stable")]:
            own = arrays.classes[d]
            key = {g: (iou(arrays.boxes[d], arrays.gt_boxes[g], False), arrays.gt_classes[g] == own)
                   for g in free}  # fmt: skip
            near = [g for g in free if key[g][0] >= 0.5]
            if near:
                best = max(near, key=lambda g, key=key: (*key[g], -g))
                free.remove(best)
                counts[arrays.gt_classes[best], own] += 1
            elif not any(
                arrays.gt_crowd[g]
                and arrays.gt_classes[g] == own
                and iou(arrays.boxes[d], arrays.gt_boxes[g], True) >= 0.5
                for g in objects
            ):
                counts[-1, own] += 1
        for g in free:
            counts[arrays.gt_classes[g], -1] += 1
    return counts


def iou(a, b, crowd):
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    area = a[2:].prod()
    return shared / (area if crowd else area + b[2:].prod() - shared)


def test_the_commonest_confusions_come_first(case):
    arrays = coco_arrays(*case.random(0))
    matrix = confusion.ConfusionMatrix(
        np.array([[5, 1, 0, 7], [3, 5, 0, 0], [2, 0, 9, 0], [8, 8, 8, 0]]), 0.5, 0.5
    )
    assert matrix.most_confused(10) == [(1, 0, 3), (2, 0, 2), (0, 1, 1)]
    assert matrix.most_confused(1) == [(1, 0, 3)]
    assert confusion_matrix(arrays).score_threshold == 0.5
