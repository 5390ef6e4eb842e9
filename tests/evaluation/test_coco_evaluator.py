"""COCOEvaluator: what it is fed, what it writes, and that it agrees with the plain files."""

import json
import logging
import math

import numpy as np
import pytest
import torch

from detlite.errors import ConfigError, DataError
from detlite.evaluation import (
    EVALUATOR_REGISTRY,
    COCOEvaluator,
    coco_box_metrics,
    evaluate_coco_files,
)
from detlite.evaluation.coco_evaluator import ground_truth_json


@pytest.fixture
def scene(case):
    """A data set of random boxes, results for it, and both as a model's inputs and outputs."""
    content, results = case.random(0)
    truth = case.ground_truth(content)
    return content, results, truth, case.outputs(truth, results)


@pytest.mark.datasets
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_instances_of_the_coco_api_test_case_give_its_published_numbers(datasets_dir, case, dtype):
    folder = datasets_dir / "coco_eval100"
    expected = case.load(folder / "expected.json")
    truth = case.ground_truth(case.load(folder / expected["ground_truth"]))
    pairs = case.outputs(truth, case.load(folder / expected["detections"]), dtype)
    values = case.evaluated(COCOEvaluator(dataset=truth), pairs)["bbox"]
    for name, value in expected["reference_full_precision"].items():
        assert values[name] / 100 == pytest.approx(value, abs=1e-12, rel=0), name


@pytest.mark.datasets
@pytest.mark.parametrize(
    "annotations",
    [
        "bccd/annotations/instances_val.json",
        "coco_mini/annotations/instances_val.json",
        "coco_eval100/annotations/instances_val2014_100.json",
    ],
)
def test_the_ground_truth_of_arrays_is_that_of_the_file(datasets_dir, case, annotations):
    content = case.load(datasets_dir / annotations)
    again = ground_truth_json(case.ground_truth(content))
    kept = ["id", "image_id", "category_id", "bbox", "area", "iscrowd"]
    original = {a["id"]: [a[key] for key in kept] for a in content["annotations"]}
    assert {a["id"]: [a[key] for key in kept] for a in again["annotations"]} == original
    assert [image["id"] for image in again["images"]] == [i["id"] for i in content["images"]]


def test_numbers_by_class_are_those_of_the_plain_results(scene, case):
    content, results, truth, pairs = scene
    values = case.evaluated(COCOEvaluator(dataset=truth), pairs)["bbox"]
    metrics = coco_box_metrics(content, results)
    expected = metrics.flat({c["id"]: c["name"] for c in content["categories"]})
    assert list(values) == list(expected)
    assert values == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_classes_and_images_in_any_order_give_the_same_numbers(scene, case):
    content, results, truth, pairs = scene
    expected = case.evaluated(COCOEvaluator(dataset=truth), pairs)["bbox"]
    turned = content | {key: content[key][::-1] for key in ("images", "categories")}
    other = case.ground_truth(turned)
    values = case.evaluated(COCOEvaluator(dataset=other), case.outputs(other, results))["bbox"]
    assert values == expected
    assert [key for key in values if key.startswith("AP-")] == [f"AP-class {c}" for c in (90, 7, 3)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_file_that_is_written_gives_the_same_numbers(scene, case, tmp_path, dtype):
    content, results, truth, _ = scene
    moved = [r | {"bbox": [x + 1 / 3 for x in r["bbox"]]} for r in results]
    evaluator = COCOEvaluator(dataset=truth, output_dir=tmp_path)
    values = case.evaluated(evaluator, case.outputs(truth, moved, dtype))["bbox"]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    found = tmp_path / "coco_instances_results.json"
    assert evaluate_coco_files(tmp_path / "truth.json", found) == values


def test_files_hold_original_category_ids_and_the_returned_numbers(scene, case, tmp_path):
    _, results, truth, pairs = scene
    folder = tmp_path / "inference" / "test"
    values = case.evaluated(COCOEvaluator(dataset=truth, output_dir=folder), pairs)
    written = case.load(folder / "coco_instances_results.json")
    assert written == sorted(written, key=lambda r: r["image_id"])
    key = json.dumps
    for a, b in zip(sorted(written, key=key), sorted(results, key=key), strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-12)
        assert {**a, "bbox": 0} == {**b, "bbox": 0}
    assert case.load(folder / "results.json") == values
    assert sorted(p.name for p in folder.iterdir()) == [
        "coco_instances_results.json",
        "results.json",
    ]


def test_absent_numbers_are_nan_and_null_in_the_file(scene, case, tmp_path):
    content, _, _, _ = scene
    truth = case.ground_truth(content | {"annotations": []})
    values = case.evaluated(COCOEvaluator(dataset=truth, output_dir=tmp_path), [])["bbox"]
    assert all(math.isnan(value) for value in values.values())
    assert case.load(tmp_path / "results.json") == {"bbox": dict.fromkeys(values)}


def test_no_detections_give_zeros(scene, case):
    _, _, truth, _ = scene
    values = case.evaluated(COCOEvaluator(dataset=truth), case.outputs(truth, []))["bbox"]
    assert set(values.values()) == {0.0}


def test_an_image_fed_twice_counts_once(scene, case):
    _, _, truth, pairs = scene
    once = case.evaluated(COCOEvaluator(dataset=truth), pairs)
    assert case.evaluated(COCOEvaluator(dataset=truth), [*pairs, *pairs[:5]]) == once


def test_images_that_were_not_seen_count_as_empty_with_a_warning(scene, case, caplog):
    _, results, truth, pairs = scene
    seen = truth.image_ids[:-3]
    found = [result for result in results if result["image_id"] in seen]
    expected = case.evaluated(COCOEvaluator(dataset=truth), case.outputs(truth, found))
    caplog.clear()
    assert case.evaluated(COCOEvaluator(dataset=truth), pairs[:-3]) == expected
    assert "3 of the 12 images of 'test' were not seen" in caplog.text


def test_reset_forgets(scene, case):
    _, _, truth, pairs = scene
    evaluator = COCOEvaluator(dataset=truth)
    first = case.evaluated(evaluator, pairs)
    assert case.evaluated(evaluator, case.outputs(truth, []))["bbox"]["AP"] == 0
    assert case.evaluated(evaluator, pairs) == first


def test_an_unknown_image_or_class_is_an_error(scene):
    _, _, truth, pairs = scene
    evaluator = COCOEvaluator(dataset=truth)
    entry, output = pairs[1]
    with pytest.raises(DataError, match="image 'x' is not in data set 'test' of 12 images"):
        evaluator.process([entry | {"image_id": "x"}], [output])
    output["instances"].pred_classes[0] = 3
    with pytest.raises(DataError, match=r"must lie in \[0, 3\).*got 3; was the model trained"):
        evaluator.process([entry], [output])


def test_detections_that_are_not_finite_are_dropped_with_a_warning(scene, case, caplog, tmp_path):
    _, results, truth, _ = scene
    expected = case.evaluated(COCOEvaluator(dataset=truth), case.outputs(truth, results[2:]))
    pairs = case.outputs(truth, results)
    wrong = pairs[1][1]["instances"]
    assert results[1]["image_id"] == truth.image_ids[1]
    wrong.scores[0] = math.nan
    wrong.pred_boxes[1, 2] = math.inf
    assert case.evaluated(COCOEvaluator(dataset=truth, output_dir=tmp_path), pairs) == expected
    assert "2 detections with a NaN or infinity were dropped" in caplog.text
    assert len(case.load(tmp_path / "coco_instances_results.json")) == len(results) - 2


def test_image_ids_can_be_strings_or_numpy_integers(scene, case, tmp_path):
    _, _, truth, pairs = scene
    expected = case.evaluated(COCOEvaluator(dataset=truth), pairs)
    for convert in (lambda i: f"{i:04d}", np.int64):
        ids = [convert(image_id) for image_id in truth.image_ids]
        other = type(truth)(**(vars(truth) | {"image_ids": ids}))
        renamed = [(e | {"image_id": ids[i]}, output) for i, (e, output) in enumerate(pairs)]
        evaluator = COCOEvaluator(dataset=other, output_dir=tmp_path)
        assert case.evaluated(evaluator, renamed) == expected


def test_tables_are_logged_and_classes_can_be_left_out(scene, case, caplog):
    _, _, truth, pairs = scene
    caplog.set_level(logging.INFO, "detlite")
    case.evaluated(COCOEvaluator(dataset=truth), pairs)
    assert "| AP50" in caplog.text
    assert "| class 90" in caplog.text
    caplog.clear()
    values = case.evaluated(COCOEvaluator(dataset=truth, per_class=False), pairs)["bbox"]
    assert len(values) == 12
    assert "| class 90" not in caplog.text


def test_a_config_block_builds_it(scene):
    _, _, truth, _ = scene
    block = {"name": "COCOEvaluator", "max_detections": [1, 10, 300]}
    evaluator = EVALUATOR_REGISTRY.build(block, dataset=truth, output_dir="somewhere")
    assert evaluator.max_detections == [1, 10, 300]


@pytest.mark.parametrize("limits", [(1, 10), (10, 1, 100), (0, 1, 2), (1, 1, 2)])
def test_limits_that_do_not_ascend_are_refused(scene, limits):
    with pytest.raises(ConfigError, match="three positive ascending numbers"):
        COCOEvaluator(dataset=scene[2], max_detections=limits)
