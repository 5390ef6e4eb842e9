"""COCO's numbers against pycocotools' own way through the files, and against published ones."""

import json
import math

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detlite.errors import DataError
from detlite.evaluation import coco_box_metrics, evaluate_coco_files


def pycocotools_numbers(tmp_path, truth, results, max_detections=(1, 10, 100)):
    """The twelve numbers and AP by category id, as its own demo computes them."""
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.params.maxDets = list(max_detections)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    by_class = {
        c: evaluation.eval["precision"][:, :, k, 0, -1].mean()
        for k, c in enumerate(evaluation.params.catIds)
    }
    return evaluation.stats.tolist(), by_class


def same(percent, fraction):
    """Whether a number agrees with pycocotools', where -1 stands for an absent one."""
    if fraction == -1:
        return math.isnan(percent)
    return percent == pytest.approx(100 * fraction, abs=1e-12)


@pytest.mark.datasets
def test_the_coco_api_test_case_gives_its_published_numbers(datasets_dir, case):
    folder = datasets_dir / "coco_eval100"
    expected = case.load(folder / "expected.json")
    values = evaluate_coco_files(folder / expected["ground_truth"], folder / expected["detections"])
    for name, value in expected["reference_full_precision"].items():
        assert values[name] / 100 == pytest.approx(value, abs=1e-12, rel=0), name
    for name, value in expected["published_3_digits"].items():
        assert round(values[name] / 100, 3) == value, name


@pytest.mark.parametrize("seed", range(4))
def test_summary_and_classes_agree_with_pycocotools(tmp_path, case, seed):
    truth, results = case.random(seed)
    stats, by_class = pycocotools_numbers(tmp_path, truth, results)
    metrics = coco_box_metrics(truth, results)
    assert all(same(a, b) for a, b in zip(metrics.summary.values(), stats, strict=True))
    assert list(metrics.class_ap) == list(by_class)
    assert all(same(metrics.class_ap[c], by_class[c]) for c in by_class)


def test_other_limits_of_detections_name_their_recalls(case):
    truth, results = case.random(0)
    summary = coco_box_metrics(truth, results, max_detections=(1, 2, 300)).summary
    reference = coco_box_metrics(truth, results, max_detections=(1, 10, 300)).summary
    assert [name for name in summary if name[2:].isdigit()] == [
        "AP50",
        "AP75",
        "AR1",
        "AR2",
        "AR300",
    ]
    assert summary["AR1"] < summary["AR2"] < summary["AR300"] == reference["AR300"]


def test_no_detections_give_zeros_and_absent_classes_nan(case):
    truth, _ = case.random(1, categories=(3, 7))
    truth["categories"].append({"id": 9, "name": "never seen"})
    metrics = coco_box_metrics(truth, [])
    assert metrics.summary["AP"] == metrics.summary["AR100"] == 0
    assert metrics.class_ap[3] == 0
    assert math.isnan(metrics.class_ap[9])


def test_no_annotations_give_nan(case):
    truth, results = case.random(2)
    metrics = coco_box_metrics(truth | {"annotations": []}, results)
    assert all(math.isnan(value) for value in metrics.summary.values())


def test_no_images_give_nan(case):
    truth, _ = case.random(2)
    metrics = coco_box_metrics(truth | {"annotations": [], "images": []}, [])
    assert all(math.isnan(value) for value in metrics.summary.values())


def test_annotation_ids_of_zero_lose_no_match(case, caplog):
    truth, results = case.random(3)
    expected = coco_box_metrics(truth, results)
    assert not caplog.records
    for annotation in truth["annotations"]:
        annotation["id"] -= 1
    assert coco_box_metrics(truth, results) == expected
    assert "numbered anew" in caplog.text


def test_results_of_unknown_images_and_categories_are_told(case, caplog):
    truth, results = case.random(0)
    expected = coco_box_metrics(truth, results)
    assert coco_box_metrics(truth, [*results, results[0] | {"category_id": 1}]) == expected
    assert "unknown category ids do not count: [1]" in caplog.text
    with pytest.raises(DataError, match="name 1 images that are not in the ground truth"):
        coco_box_metrics(truth, [*results, results[0] | {"image_id": 4}])


def test_nothing_is_printed_and_the_arguments_stay_as_they_are(case, capsys):
    truth, results = case.random(0)
    before = json.dumps([truth, results])
    coco_box_metrics(truth, results)
    assert json.dumps([truth, results]) == before
    assert capsys.readouterr().out == ""
