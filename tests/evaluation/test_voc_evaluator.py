"""VOC's average precision against published numbers and against the devkit's loop."""

import math

import numpy as np
import pytest

from detlite.errors import ConfigError
from detlite.evaluation import VOCEvaluator


def devkit_ap(truth, results, category, threshold, method):
    """VOCevaldet.m line by line: one class, inclusive pixels; Python's eleven recalls."""
    objects = [a for a in truth["annotations"] if a["category_id"] == category]
    npos = sum(not a.get("difficult", 0) for a in objects)
    found = sorted((r for r in results if r["category_id"] == category), key=lambda r: -r["score"])
    taken, tp, fp = set(), [], []
    for result in found:
        best, best_object = -math.inf, None
        x, y, w, h = result["bbox"]
        for a in (a for a in objects if a["image_id"] == result["image_id"]):
            gx, gy, gw, gh = a["bbox"]
            iw = min(x + w, gx + gw) - max(x, gx) + 1
            ih = min(y + h, gy + gh) - max(y, gy) + 1
            if iw > 0 and ih > 0:
                union = (w + 1) * (h + 1) + (gw + 1) * (gh + 1) - iw * ih
                if iw * ih / union > best:
                    best, best_object = iw * ih / union, a
        true = false = 0
        if best >= threshold:
            if not best_object.get("difficult", 0):
                true = best_object["id"] not in taken
                false = not true
                taken.add(best_object["id"])
        else:
            false = 1
        tp.append(true)
        fp.append(false)
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall, precision = tp / npos, tp / np.maximum(fp + tp, 1)
    if method == "11point":
        at = [precision[recall >= point] for point in np.arange(0, 1.1, 0.1)]
        return sum(p.max() if len(p) else 0 for p in at) / 11
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return np.sum((recall[steps] - recall[steps - 1]) * precision[steps])


@pytest.mark.datasets
@pytest.mark.parametrize(
    ("method", "task", "key"),
    [("area", "voc", "every_point"), ("11point", "voc07", "eleven_point")],
)
def test_the_worked_example_gives_its_published_numbers(datasets_dir, case, method, task, key):
    folder = datasets_dir / "voc_eval7"
    expected = case.load(folder / "expected.json")
    truth = case.ground_truth(case.load(folder / "annotations/instances.json"))
    pairs = case.outputs(truth, case.load(folder / "results/detections.json"))
    thresholds = [float(threshold) for threshold in expected["reference"][key]]
    evaluator = VOCEvaluator(dataset=truth, iou_thresholds=thresholds, method=method)
    values = case.evaluated(evaluator, pairs)[task]
    for threshold, value in expected["reference"][key].items():
        name = f"AP{100 * float(threshold):g}"
        assert values[name] / 100 == pytest.approx(value, abs=1e-10)
        assert values[f"{name}-{truth.class_names[0]}"] == values[name]
    published = expected["published_at_iou_0.3"][key]
    assert values["AP30"] / 100 == pytest.approx(published, abs=1e-4)


@pytest.mark.datasets
def test_continuous_coordinates_give_lower_numbers_in_the_worked_example(datasets_dir, case):
    folder = datasets_dir / "voc_eval7"
    truth = case.ground_truth(case.load(folder / "annotations/instances.json"))
    pairs = case.outputs(truth, case.load(folder / "results/detections.json"))
    inclusive, continuous = (
        case.evaluated(
            VOCEvaluator(dataset=truth, iou_thresholds=[0.1, 0.3], inclusive_pixels=choice), pairs
        )["voc"]
        for choice in (True, False)
    )
    assert continuous["AP10"] < inclusive["AP10"]
    assert continuous["AP30"] < inclusive["AP30"]


@pytest.mark.parametrize("method", ["area", "11point"])
@pytest.mark.parametrize("seed", range(4))
def test_classes_agree_with_the_devkit(case, seed, method):
    content, results = case.random(seed, num_images=20)
    rng = np.random.default_rng(seed)
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
        annotation["difficult"] = int(rng.random() < 0.3)
    truth = case.ground_truth(content)
    thresholds = [0.3, 0.5, 0.75]
    evaluator = VOCEvaluator(dataset=truth, iou_thresholds=thresholds, method=method)
    (values,) = case.evaluated(evaluator, case.outputs(truth, results)).values()
    for threshold in thresholds:
        key = f"AP{100 * threshold:g}"
        aps = [devkit_ap(content, results, c, threshold, method) for c in truth.category_ids]
        assert values[key] == pytest.approx(100 * np.mean(aps), abs=1e-9)
        by_class = [values[f"{key}-{name}"] for name in truth.class_names]
        assert by_class == pytest.approx(100 * np.array(aps), abs=1e-9)


def one_image(*boxes, **marks):
    """A data set of one image with boxes of one class, those named in ``marks`` marked."""
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0}
        | {mark: int(i in chosen) for mark, chosen in marks.items()}
        for i, box in enumerate(boxes)
    ]
    images = [{"id": 1, "height": 100, "width": 100}]
    return {
        "images": images,
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }


def detections(*scored):
    return [{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for b, s in scored]


A, B, FAR = [0, 0, 20, 20], [40, 40, 20, 20], [70, 0, 20, 20]


@pytest.mark.parametrize("mark", ["difficult", "iscrowd"])
def test_a_difficult_object_is_neither_found_nor_missed_nor_wrong(case, mark):
    truth = case.ground_truth(one_image(A, B, **{mark: [0]}))
    evaluator = VOCEvaluator(dataset=truth)
    twice_on_it = detections((A, 0.9), (A, 0.8), (B, 0.7))
    assert case.evaluated(evaluator, case.outputs(truth, twice_on_it))["voc"]["AP50-cat"] == 100
    nothing = case.evaluated(evaluator, case.outputs(truth, detections((A, 0.9))))
    assert nothing["voc"]["AP50-cat"] == 0


def test_a_second_detection_of_an_object_is_wrong(case):
    truth = case.ground_truth(one_image(A, B))
    found = detections((A, 0.9), (A, 0.8), (B, 0.7), (FAR, 0.6))
    values = case.evaluated(VOCEvaluator(dataset=truth), case.outputs(truth, found))["voc"]
    assert values["AP50"] == pytest.approx(100 * (1 / 2 + 1 / 2 * 2 / 3))


@pytest.mark.parametrize(("order", "expected"), [((A, FAR), 100), ((FAR, A), 50)])
def test_equal_scores_keep_their_order(case, order, expected):
    truth = case.ground_truth(one_image(A))
    found = detections(*((box, 0.5) for box in order))
    values = case.evaluated(VOCEvaluator(dataset=truth), case.outputs(truth, found))["voc"]
    assert values["AP50"] == expected


def test_three_of_ten_objects_miss_the_fourth_recall_as_in_the_published_numbers(case):
    boxes = [[100 * i, 0, 20, 20] for i in range(10)]
    truth = case.ground_truth(one_image(*boxes))
    found = detections(*((box, 0.9) for box in boxes[:3]))
    evaluator = VOCEvaluator(dataset=truth, method="11point")
    values = case.evaluated(evaluator, case.outputs(truth, found))["voc07"]
    assert values["AP50"] == pytest.approx(100 * 3 / 11)


@pytest.mark.parametrize("method", ["area", "11point"])
def test_no_detections_give_zero_and_no_objects_nan(case, tmp_path, method):
    truth = case.ground_truth(one_image(A, B))
    evaluator = VOCEvaluator(dataset=truth, method=method)
    (values,) = case.evaluated(evaluator, case.outputs(truth, [])).values()
    assert set(values.values()) == {0.0}
    empty = case.ground_truth(one_image())
    evaluator = VOCEvaluator(dataset=empty, output_dir=tmp_path, method=method)
    ((task, values),) = case.evaluated(evaluator, case.outputs(truth, detections((A, 1.0)))).items()
    assert all(math.isnan(value) for value in values.values())
    assert case.load(tmp_path / f"results_{task}.json") == {task: dict.fromkeys(values)}


@pytest.mark.parametrize("thresholds", [[], [0.0], [0.5, 1.5]])
def test_thresholds_outside_zero_and_one_are_refused(case, thresholds):
    with pytest.raises(ConfigError, match="iou_thresholds must lie in"):
        VOCEvaluator(dataset=case.ground_truth(one_image()), iou_thresholds=thresholds)
