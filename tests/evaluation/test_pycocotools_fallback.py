"""Without the compiled part: the same numbers by pycocotools, and one line that says so."""

import json
import subprocess
import sys

import numpy as np
import pytest

from detlite.evaluation import ap_interval, coco_arrays, compiled, confusion_matrix, evaluate_boxes

WITHOUT = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
sys.modules["detlite.evaluation._coco_match"] = None  # its import fails
from detlite.evaluation import coco_arrays, evaluate_boxes, ap_interval
truth, results = json.load(sys.stdin)
for _ in range(2):
    evaluation = evaluate_boxes(coco_arrays(truth, results))
assert ap_interval(evaluation.matches) is None
assert "torch" not in sys.modules
print(json.dumps(evaluation.metrics.flat({c: str(c) for c in evaluation.arrays.category_ids})))
try:
    coco_arrays(truth, [*results, {"image_id": 5, "category_id": 3, "bbox": [1, 2], "score": 1}])
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("seed", range(3))
def test_an_installation_without_the_compiled_part_says_so_once(case, seed):
    truth, results = case.random(seed)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input=json.dumps([truth, results]),
        capture_output=True,
        text=True,
        check=True,
    )
    numbers, error = done.stdout.splitlines()
    metrics = evaluate_boxes(coco_arrays(truth, results)).metrics
    assert json.loads(numbers) == metrics.flat({c["id"]: str(c["id"]) for c in truth["categories"]})
    assert done.stderr.count("pycocotools evaluates") == 1
    assert "`pip install -e .` again" in done.stderr
    assert "`bbox` must be four finite numbers x, y, width, height, got [1, 2]" in error


@pytest.mark.parametrize("seed", range(20))
def test_curves_and_best_points_are_the_same(case, seed, monkeypatch):
    arrays = coco_arrays(*case.random(seed))
    expected = evaluate_boxes(arrays)
    monkeypatch.setattr(compiled, "COMPILED", False)
    found = evaluate_boxes(arrays)
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(getattr(found.curves, name), getattr(expected.curves, name)), name
    assert found.metrics == expected.metrics


def test_the_python_reader_agrees_with_the_compiled_one(case):
    truth, results = case.random(0)
    results[3]["bbox"] = np.array(results[3]["bbox"], np.float32)
    results[4]["score"] = np.float32(0.25)
    results[5]["bbox"] = tuple(results[5]["bbox"])
    results[6]["image_id"] = np.int64(results[6]["image_id"])
    results[7]["category_id"] = 1000
    wrong = [None, 5, {}, results[0] | {"bbox": "abcd"}, results[0] | {"bbox": [1, 2, 3, "4"]},
             results[0] | {"score": "1"}, results[0] | {"score": float("nan")},
             results[0] | {"image_id": [1]}, results[0] | {"bbox": [1, 2, 3, 10**400]}]  # fmt: skip
    index = ({image["id"]: i for i, image in enumerate(truth["images"])}, {3: 0, 7: 1, 90: 2})
    for key, entries in [("score", results), ("area", truth["annotations"]),
                         *(("score", [*results[:9], entry]) for entry in wrong)]:  # fmt: skip
        outcomes = []
        for read in (compiled.read_entries, compiled.read_entries_in_python):
            arrays = np.zeros((len(entries), 4)), *np.zeros((2, len(entries)), np.int32)
            numbers = np.zeros(len(entries))
            outcomes.append((read(entries, *index, *arrays, numbers, key),
                             *(x[:9].tolist() for x in (*arrays, numbers))))  # fmt: skip
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][0] == (-1 if entries[-1] not in wrong else 9)


def test_the_confusion_matrix_needs_nothing_compiled(case, monkeypatch):
    arrays = coco_arrays(*case.random(0))
    expected = confusion_matrix(arrays).counts.tolist()
    monkeypatch.setattr(compiled, "COMPILED", False)
    assert confusion_matrix(arrays).counts.tolist() == expected


def test_the_interval_is_absent(case, monkeypatch):
    monkeypatch.setattr(compiled, "COMPILED", False)
    assert ap_interval(evaluate_boxes(coco_arrays(*case.random(0))).matches) is None


def test_this_environment_has_the_compiled_part():
    assert compiled.COMPILED, "the tests above compare pycocotools with itself; build detlite first"
