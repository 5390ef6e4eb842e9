"""The bootstrap interval of AP: exact resamples, the same ones for a seed."""

import dataclasses
import math

import numpy as np
import pytest

from detlite.evaluation import ap_interval, bootstrap, coco_arrays, evaluate_boxes
from detlite.evaluation.bootstrap import resample_ap, resample_weights
from detlite.evaluation.coco_matching import curves


def without_ties(truth, results):
    """Scores that differ within an image, so that the order of its copies is the only one."""
    rng = np.random.default_rng(0)
    scores = rng.random(len(results)).round(4).tolist()
    return truth, [result | {"score": s} for result, s in zip(results, scores, strict=True)]


def copied(truth, results, weights):
    """The data set that a resample stands for, its images literally there several times."""
    images, annotations, found = [], [], []
    for image, weight in zip(truth["images"], weights.tolist(), strict=True):
        for _ in range(weight):
            key = {"image_id": len(images) + 1}
            images.append({"id": key["image_id"]})
            annotations += [
                a | key | {"id": len(annotations) + n}
                for n, a in enumerate((a for a in truth["annotations"]
                                       if a["image_id"] == image["id"]), start=1)
            ]  # fmt: skip
            found += [r | key for r in results if r["image_id"] == image["id"]]
    return truth | {"images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", range(6))
def test_a_resample_is_the_data_set_with_its_images_copied(case, seed):
    truth, results = without_ties(*case.random(seed, num_images=10))
    matches = evaluate_boxes(coco_arrays(truth, results)).matches
    means = resample_ap(matches, 12, seed)
    for number, mean in enumerate(means):
        weights = resample_weights(10, seed, number)
        assert weights.sum() == 10
        expected = case.pycocotools(*copied(truth, results, weights))[0][0]
        assert mean == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_curves_are_those_of_copied_images(case, seed):
    truth, results = without_ties(*case.random(seed, num_images=10))
    evaluation = evaluate_boxes(coco_arrays(truth, results))
    weights = resample_weights(10, seed, 0)
    weighted = curves(dataclasses.replace(evaluation.matches, weights=weights))
    _, *expected = case.pycocotools(*copied(truth, results, weights))
    for name, values in zip(("precision", "recall", "scores"), expected, strict=True):
        assert np.array_equal(getattr(weighted, name), values), name


@pytest.mark.parametrize("seed", range(6))
def test_weights_of_one_give_the_ap_of_the_data_set(case, seed, monkeypatch):
    monkeypatch.setattr(bootstrap, "resample_weights", lambda n, *_: np.ones(n, np.int32))
    evaluation = evaluate_boxes(coco_arrays(*case.random(seed)))
    ap = evaluation.metrics.summary["AP"]
    assert 100 * resample_ap(evaluation.matches, 1, 0)[0] == pytest.approx(ap, abs=1e-10)


def test_the_interval_holds_the_asked_share_of_resamples(case):
    matches = evaluate_boxes(coco_arrays(*case.random(0, num_images=40))).matches
    means = 100 * resample_ap(matches, 400, 3)
    interval = ap_interval(matches, num_resamples=400, level=0.9, seed=3)
    inside = (means >= interval.low) & (means <= interval.high)
    assert inside.mean() == pytest.approx(0.9, abs=0.006)
    assert (interval.level, interval.num_resamples) == (0.9, 400)


def test_the_draws_depend_on_seed_and_number_alone(case):
    matches = evaluate_boxes(coco_arrays(*case.random(1))).matches
    first = resample_ap(matches, 50, 7)
    assert resample_ap(matches, 20, 7).tolist() == first[:20].tolist()
    assert resample_ap(matches, 50, 8).tolist() != first.tolist()


def test_the_interval_narrows_with_more_images(case):
    widths = []
    for num_images in (20, 320):
        matches = evaluate_boxes(coco_arrays(*case.random(2, num_images))).matches
        interval = ap_interval(matches, num_resamples=300)
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_without_ground_truth_or_images_it_is_nan(case):
    truth, results = case.random(0)
    for content, found in ((truth | {"annotations": []}, results),
                           ({"images": [], "categories": [], "annotations": []}, [])):  # fmt: skip
        interval = ap_interval(evaluate_boxes(coco_arrays(content, found)).matches)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
