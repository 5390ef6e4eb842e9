"""tools/evaluate.py: what it prints, what it writes, what it says of a wrong file."""

import json
import math
import pathlib
import subprocess
import sys

import pytest

from detlite.evaluation import coco_box_metrics

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "evaluate.py"

TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "owl"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [9, 9, 20, 40], "area": 800},
    ],
}
GOOD = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 49], "score": 0.9}
RESULTS = [GOOD, {"image_id": 2, "category_id": 1, "bbox": [9, 9, 20, 40], "score": 0.8}]


@pytest.fixture
def evaluate(run_tool, tmp_path):
    """Write two files, text as it is and all else as JSON, and run the tool on them."""

    def run(truth, results, *arguments):
        paths = tmp_path / "gt.json", tmp_path / "dt.json"
        for path, content in zip(paths, (truth, results), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        files = ("--annotations", paths[0], "--results", paths[1])
        return run_tool("evaluate", *files, *arguments)

    return run


def test_it_prints_numbers_classes_and_confusions_and_writes_them(evaluate, tmp_path):
    output = tmp_path / "new" / "out.json"
    code, out, err = evaluate(TRUTH, RESULTS, "--output", output)
    assert (code, err) == (0, "")
    metrics = coco_box_metrics(TRUTH, RESULTS)
    assert f"| AP    | {metrics.summary['AP']:.3f}" in out
    assert "95 % interval" in out
    assert "| cat " in out
    assert "| dog                 | 1 " in out  # found as a cat
    report = json.loads(output.read_text())
    expected = metrics.flat({1: "cat", 7: "dog", 9: "owl"})
    assert report["bbox"] == {k: None if math.isnan(v) else v for k, v in expected.items()}
    assert report["confusion"]["classes"] == ["cat", "dog", "owl", "background"]
    assert report["confusion"]["counts"][0][0] == report["confusion"]["counts"][1][0] == 1
    assert report["AP_interval"]["num_resamples"] == 1000
    assert [entry["id"] for entry in report["classes"]] == [1, 7, 9]
    assert report["classes"][0]["best"] == {
        "score": 0.9,
        "precision": 100,
        "recall": 100,
        "f1": 100,
    }
    assert (report["num_images"], report["num_annotations"], report["num_detections"]) == (2, 2, 2)


def test_the_options_reach_the_numbers(evaluate, tmp_path):
    output = tmp_path / "out.json"
    options = ["--max-detections", 1, 2, 300, "--bootstrap", 0, "--score-threshold", 0.85]
    code, out, _ = evaluate(TRUTH, RESULTS, "--output", output, *options)
    report = json.loads(output.read_text())
    assert (code, report["AP_interval"], report["max_detections"]) == (0, None, [1, 2, 300])
    assert "interval" not in out
    assert "AR300" in report["bbox"]
    assert report["confusion"]["counts"][1] == [0, 0, 0, 1]


def test_many_classes_give_the_commonest_confusions(evaluate):
    categories = [{"id": k, "name": f"kind {k}"} for k in range(1, 20)]
    code, out, _ = evaluate(TRUTH | {"categories": categories}, RESULTS)
    assert code == 0
    assert "| kind 7   | kind 1     | 1       | 100.0 %" in out


@pytest.mark.datasets
def test_the_coco_api_test_case_gives_its_published_numbers(run_tool, datasets_dir, tmp_path):
    folder = datasets_dir / "coco_eval100"
    expected = json.loads((folder / "expected.json").read_text())
    code, _, err = run_tool(
        *("evaluate", "--annotations", folder / expected["ground_truth"]),
        *("--results", folder / expected["detections"], "--output", tmp_path / "out.json"),
    )
    assert (code, err) == (0, "")
    values = json.loads((tmp_path / "out.json").read_text())["bbox"]
    for name, value in expected["reference_full_precision"].items():
        assert values[name] / 100 == pytest.approx(value, abs=1e-12, rel=0), name


def test_no_results_and_ids_of_text_are_no_error(evaluate):
    assert evaluate(TRUTH, [])[0] == 0
    text = json.loads(json.dumps(TRUTH).replace('"image_id": 1', '"image_id": "a"'))
    text["images"][0]["id"] = "a"
    text["images"][1]["id"] = "b"
    text["annotations"][1]["image_id"] = "b"
    code, out, _ = evaluate(text, [GOOD | {"image_id": "a"}])
    assert code == 0
    assert "| AP50  | 50.000" in out


def test_annotation_ids_used_twice_lose_nothing(evaluate, caplog):
    twice = [a | {"id": 1} for a in TRUTH["annotations"]]
    results = [GOOD, GOOD | {"image_id": 2, "category_id": 7, "bbox": [9, 9, 20, 40]}]
    code, out, _ = evaluate(TRUTH | {"annotations": twice}, results)
    assert code == 0
    assert "| AP50  | 100.000" in out
    assert "numbered anew" in caplog.text


WRONG_RESULTS = [
    ("hello", "dt.json' are not valid JSON"),
    ("", "dt.json' are not valid JSON"),
    ("null", "must be a list of objects with image_id, category_id, bbox and score, it is only"),
    ({"annotations": [GOOD]}, "write the list under 'annotations' alone into the file"),
    (TRUTH, "this is the form of an annotation file: are the two files swapped?"),
    ([5], "result 0 of 1: it must be an object with image_id, category_id and bbox, got 5"),
    ([GOOD, {"image_id": 1}], "result 1 of 2: it has no category_id and no bbox and no score"),
    ([{**GOOD, "bbox": [1, 2, 3]}], "`bbox` must be four finite numbers x, y, width, height"),
    ([{**GOOD, "bbox": ["1", 2, 3, 4]}], 'finite numbers x, y, width, height, got ["1", 2, 3, 4]'),
    ([{**GOOD, "bbox": None}], "`bbox` must be four finite numbers"),
    ([{**GOOD, "bbox": [0, 0, 5, -1]}], "must not be negative, got [0, 0, 5, -1]"),
    ([{**GOOD, "bbox": [0, 0, math.inf, 1]}], "got [0, 0, Infinity, 1]"),
    ([GOOD, {**GOOD, "score": math.nan}], "result 1 of 2: `score` must be a finite number, got Na"),
    ([{**GOOD, "score": "0.9"}], '`score` must be a finite number, got "0.9"'),
    ([{**GOOD, "score": None}], "`score` must be a finite number, got null"),
    ([{**GOOD, "image_id": 3}], "not in the ground truth of 2 images, e.g. 3; are these"),
    ([{**GOOD, "image_id": "1"}], "ids are numbers, this one is a text"),
    ([{**GOOD, "image_id": [1]}], "`image_id` must be a number or a text, got [1]"),
    ([{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 1}], "not masks"),
]


@pytest.mark.parametrize(("results", "message"), WRONG_RESULTS)
def test_wrong_results_are_told_in_one_line(evaluate, results, message):
    code, out, err = evaluate(TRUTH, results)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


ONE = TRUTH["annotations"][0]
WRONG_TRUTHS = [
    ("[1", "gt.json' are not valid JSON"),
    (RESULTS, "a list is the form of a results file: are the two files swapped?"),
    ({"images": []}, "categories and annotations, it is an object with images"),
    ({**TRUTH, "images": {}}, "must be an object with the lists images, categories and annot"),
    ({**TRUTH, "images": [{}]}, "entry 0 of `images` must be an object whose `id` is a number"),
    ({**TRUTH, "categories": [3]}, "entry 0 of `categories` must be an object"),
    ({**TRUTH, "annotations": ["a"]}, "annotation 0 of 1: it must be an object with image_id, cat"),
    ({**TRUTH, "annotations": [{"image_id": 1, "category_id": 1, "segmentation": []}]}, "no bbox"),
    ({**TRUTH, "annotations": [{**ONE, "bbox": []}]}, "four finite numbers"),
    ({**TRUTH, "annotations": [{**ONE, "area": "big"}]}, '`area` must be a finite number, got "b'),
    ({**TRUTH, "annotations": [{**ONE, "iscrowd": "no"}]}, '`iscrowd` must be 0 or 1, got "no"'),
]


@pytest.mark.parametrize(("truth", "message"), WRONG_TRUTHS)
def test_wrong_annotations_are_told_in_one_line(evaluate, truth, message):
    code, out, err = evaluate(truth, RESULTS)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_unknown_categories_and_boxes_of_unlisted_images_are_told_and_do_not_count(
    evaluate, caplog
):
    truth = {**TRUTH, "annotations": [*TRUTH["annotations"], ONE | {"id": 5, "image_id": 6}]}
    code, out, _ = evaluate(truth, [*RESULTS, GOOD | {"category_id": 5}])
    assert code == 0
    assert "2 images, 2 annotations, 2 detections" in out
    assert "results of unknown category ids do not count: [5]" in caplog.text
    assert "1 annotations of images or categories that the file does not list" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-detections", 10, 1, 100], "three positive ascending numbers, got [10, 1, 100]"),
        (["--bootstrap", -1], "must not be negative, got -1"),
        (["--score-threshold", 2], "must be in [0, 1], got 2.0"),
        (["--annotations", "nowhere.json"], "cannot read the annotations 'nowhere.json': No such"),
    ],
)
def test_wrong_options_are_told(evaluate, arguments, message):
    code, _, err = evaluate(TRUTH, RESULTS, *arguments)
    assert code == 2
    assert message in err


def test_an_output_that_cannot_be_written_is_told(evaluate, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = evaluate(TRUTH, RESULTS, "--output", tmp_path / "file" / "out.json")
    assert code == 2
    assert "cannot write --output" in err


BLOCKED = """
import runpy, sys
for name in ("torch", "torchvision", "pycocotools"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_runs_without_torch_and_without_pycocotools(tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(TRUTH))
    (tmp_path / "dt.json").write_text(json.dumps(RESULTS))
    files = ["--annotations", tmp_path / "gt.json", "--results", tmp_path / "dt.json"]
    command = [sys.executable, "-W", "error", "-c", BLOCKED, TOOL, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| AP " in done.stdout
