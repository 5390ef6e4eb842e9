"""Every bit as in pycocotools: the twelve numbers, and the arrays of precision, recall, scores."""

import importlib.util
import pathlib

import numpy as np
import pytest

from detlite.evaluation.coco_arrays import coco_arrays
from detlite.evaluation.coco_metrics import coco_summary, evaluate_boxes

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


def ours(truth, results, limits=(1, 10, 100)):
    curves = evaluate_boxes(coco_arrays(truth, results), max_detections=limits).curves
    stats = np.array([*coco_summary(curves, limits).values()])
    return stats, curves.precision, curves.recall, curves.scores


def assert_bit_equal(case, truth, results):
    names = ("stats", "precision", "recall", "scores")
    found, expected = ours(truth, results), case.pycocotools(truth, results)
    for name, a, b in zip(names, found, expected, strict=True):
        assert a.dtype == b.dtype == np.float64
        assert a.shape == b.shape
        assert np.array_equal(a, b), f"{name}: {np.sum(a != b)} values differ"


EXACT_AREAS = [(32, 32), (96, 96), (16, 64), (8, 128), (48, 192), (31, 33), (96, 95), (97, 96)]
CATEGORIES = [[1], [1, 2], [3, 7, 90], [5, 2, 11, 4], ["cat", "dog", "a bird"]]


def random_set(seed):
    """Small data sets, each with a few of the things that evaluators get wrong."""
    rng = np.random.default_rng(seed)
    odd = {name: rng.random() < 0.4 for name in ODDITIES}
    categories = CATEGORIES[rng.integers(len(CATEGORIES))]
    num_images = int(rng.integers(1, 9))
    ids = [int(i) for i in rng.permutation(1000)[:num_images]]
    if odd["string ids"]:
        ids = [f"image {i}" for i in ids]
    truth = {
        "images": [{"id": i} for i in ids],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
        "annotations": [],
    }
    results = []
    used = categories[1:] if odd["class without objects"] and len(categories) > 1 else categories
    for image in ids[: -1 if odd["empty image"] else None]:
        for _ in range(int(rng.integers(0, 9))):
            add_object(rng, odd, truth["annotations"], image, used[rng.integers(len(used))])
    boxes = [a["bbox"] for a in truth["annotations"]]
    for _ in range(int(rng.integers(0, 60))):
        category = categories[rng.integers(len(categories))]
        add_result(rng, odd, results, ids[rng.integers(num_images)], category, boxes, truth)
    if odd["many detections"]:
        for _ in range(150):
            add_result(rng, odd, results, ids[0], categories[0], boxes, truth)
    if odd["no detections"] and rng.random() < 0.2:
        results = []
    if odd["no annotations"] and rng.random() < 0.2:
        truth["annotations"] = []
    if odd["unlisted"]:
        unlisted = {"image_id": 10**6, "category_id": categories[0], "bbox": [0, 0, 9, 9]}
        extra = {**unlisted, "id": 10**6, "area": 81, "iscrowd": 0}
        truth["annotations"].append(extra)
        other = "nothing" if isinstance(categories[0], str) else 10**6
        truth["annotations"].append(
            {**extra, "id": 10**6 + 1, "image_id": ids[0], "category_id": other}
        )
        results += [{**result, "category_id": other} for result in results[:2]]
    return truth, results


ODDITIES = [
    *("crowds", "ignore flags", "ties", "no detections", "no annotations", "area limits"),
    *("many detections", "class without objects", "empty image", "duplicates", "zero area"),
    *("string ids", "whole numbers", "unlisted", "no area"),
]


def add_object(rng, odd, annotations, image, category):
    size = rng.uniform(3, 200, 2)
    if odd["area limits"] and rng.random() < 0.7:
        size = np.array(EXACT_AREAS[rng.integers(len(EXACT_AREAS))], float)
    if odd["zero area"] and rng.random() < 0.2:
        size[rng.integers(2)] = 0
    box = np.concatenate([rng.uniform(0, 100, 2), size])
    box = box.round().astype(int).tolist() if odd["whole numbers"] else box.tolist()
    factor = 1 if odd["area limits"] or odd["whole numbers"] else rng.uniform(0.4, 1)
    crowd = int(odd["crowds"] and rng.random() < 0.25)
    entry = {
        "id": len(annotations) + 1,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": box[2] * box[3] * factor,
        "iscrowd": crowd,
    }
    if odd["ignore flags"] and rng.random() < 0.3:
        entry["ignore"] = 1  # which pycocotools reads and overwrites
    annotations.append(entry)
    if odd["duplicates"] and rng.random() < 0.3:
        annotations.append({**entry, "id": len(annotations) + 1})


def add_result(rng, odd, results, image, category, boxes, truth):
    here = [a for a in truth["annotations"] if a["image_id"] == image]
    if here and rng.random() < 0.75:
        target = here[rng.integers(len(here))]
        box = np.array(target["bbox"], float)
        if rng.random() < 0.7:
            box = box + rng.normal(0, rng.choice([0.5, 4, 15]), 4)
        category = target["category_id"] if rng.random() < 0.85 else category
    else:
        box = np.concatenate([rng.uniform(0, 100, 2), rng.uniform(1, 150, 2)])
    box[2:] = box[2:].clip(0)
    box = box.round().astype(int).tolist() if odd["whole numbers"] else box.tolist()
    score = float(rng.random())
    if odd["ties"]:
        score = float(rng.choice([0, 0.25, 0.5, 0.5, 0.75, 1]))
    results.append({"image_id": image, "category_id": category, "bbox": box, "score": score})
    if odd["duplicates"] and rng.random() < 0.2:
        results.append({**results[-1]})


@pytest.mark.parametrize("block", range(10))
def test_random_sets_are_bit_equal(case, block):
    for seed in range(30 * block, 30 * block + 30):
        truth, results = random_set(seed)
        try:
            assert_bit_equal(case, truth, results)
        except AssertionError as error:
            raise AssertionError(f"random set {seed}: {error}") from error


def test_the_random_sets_hold_what_they_are_meant_to_hold():
    sets = [random_set(seed) for seed in range(300)]
    objects = [a for truth, _ in sets for a in truth["annotations"]]
    assert sum(not results for _, results in sets) > 5
    assert sum(not truth["annotations"] for truth, _ in sets) > 5
    assert sum(a["iscrowd"] for a in objects) > 100
    assert sum(a["area"] in (32**2, 96**2) for a in objects) > 100
    assert sum(a["area"] == 0 for a in objects) > 50
    assert sum(np.max(ours(*each)[0]) > 0.2 for each in sets) > 150
    crowded = (np.unique([str(r["image_id"]) for r in results], return_counts=True)[1].max() > 100
               for _, results in sets if results)  # fmt: skip
    assert sum(crowded) > 50


@pytest.mark.parametrize("limits", [(1, 2, 3), (1, 10, 300), (5, 50, 100)])
def test_other_limits_are_bit_equal(case, limits):
    for seed in range(400, 410):
        truth, results = random_set(seed)
        found, expected = (f(truth, results, limits) for f in (ours, case.pycocotools))
        # its summary looks for 100 detections in places, and finds no such limit
        for a, b in zip(found[1:], expected[1:], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.datasets
def test_the_coco_api_test_case_is_bit_equal(datasets_dir, case):
    folder = datasets_dir / "coco_eval100"
    expected = case.load(folder / "expected.json")
    paths = (folder / expected[key] for key in ("ground_truth", "detections"))
    assert_bit_equal(case, *map(case.load, paths))


def test_overlaps_a_rounding_away_from_a_threshold_are_bit_equal(case):
    rng = np.random.default_rng(0)
    truth = {"images": [], "categories": [{"id": 1, "name": "thing"}], "annotations": []}
    results = []
    for i in range(1, 1501):
        x, y, width, height = rng.uniform(1, 300, 4).tolist()
        common = {"image_id": i, "category_id": 1}
        truth["images"].append({"id": i})
        truth["annotations"].append(
            {**common, "id": i, "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
        )
        inside = [x, y, width * (0.5 + 0.05 * (i % 10)), height]
        results.append({**common, "bbox": inside, "score": i / 2000})
    assert_bit_equal(case, truth, results)


def test_no_images_and_no_categories_are_bit_equal(case):
    for missing in ("images", "categories", "annotations"):
        truth, results = random_set(3)
        truth[missing] = []
        results = [] if missing == "images" else results
        found, expected = (f(truth, results)[1:] for f in (ours, case.pycocotools))
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert np.array_equal(a, b)


def test_entries_listed_twice_are_bit_equal(case):
    truth, results = random_set(5)
    truth["images"] += truth["images"][:2]
    truth["categories"] += truth["categories"]
    assert_bit_equal(case, truth, results)


def large_set(**size):
    """The set of the benchmark."""
    path = TOOLS / "benchmarks" / "coco_eval.py"
    spec = importlib.util.spec_from_file_location("benchmark_coco_eval", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.large_set(**size)


def test_a_set_that_is_worth_threads_is_bit_equal(case):
    truth, results = large_set(seed=1, num_images=250)
    assert len(results) == 25_000
    assert_bit_equal(case, truth, results)


@pytest.mark.slow
def test_the_large_set_is_bit_equal(case):
    truth, results = large_set()
    assert len(truth["annotations"]) > 36_000
    assert len(results) == 500_000
    assert_bit_equal(case, truth, results)


@pytest.mark.parametrize("side", [1e-170, 1e-200, 1e200])
@pytest.mark.parametrize("crowd", [0, 1])
def test_areas_beyond_float64_count_as_in_pycocotools(case, side, crowd):
    # 0 / 0, or infinity by infinity: an IoU that is not a number.
    boxes = [[5, 5, 9, 9], [0, 0, side, side], [2, 2, 3, 3], [0, 0, side, side]]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 50.0,
             "iscrowd": crowd if i == 1 else 0}
            for i, box in enumerate(boxes)
        ],
    }  # fmt: skip
    results = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - 0.1 * i}
        for i, box in enumerate([boxes[1], boxes[0], boxes[1], [1, 1, side, side]])
    ]
    assert_bit_equal(case, truth, results)
