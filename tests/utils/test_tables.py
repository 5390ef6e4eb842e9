"""Tables fit a terminal of 80 columns, whatever is in them, and lose no cell."""

import re

import numpy as np
import pytest
import torch

from detlite.checkpoint import LoadReport
from detlite.evaluation import confusion_matrix, evaluate_boxes
from detlite.evaluation.bootstrap import Interval
from detlite.evaluation.coco_arrays import coco_arrays
from detlite.evaluation.coco_report import class_metrics_table, confusion_table, summary_table
from detlite.evaluation.reports import class_table, metrics_table
from detlite.solver.optimizer import group_table
from detlite.utils.env import environment
from detlite.utils.tables import fits, fitted_table, wrapped


def words_of(text):
    return re.findall(r"[\w.]+", text)


@pytest.mark.parametrize("num_columns", [1, 2, 9, 40])
@pytest.mark.parametrize("length", [3, 30, 100])
@pytest.mark.parametrize("num_keys", [0, 1])
@pytest.mark.parametrize("tablefmt", ["simple", "pipe"])
def test_a_table_fits_and_has_every_cell(num_columns, length, num_keys, tablefmt):
    headers = [f"h{c}" for c in range(num_columns)]
    rows = [
        [(f"r{r}c{c} " * length)[:length].strip() for c in range(num_columns)] for r in range(3)
    ]
    text = fitted_table(rows, headers, num_keys=num_keys, tablefmt=tablefmt)
    assert fits(text)
    assert {*headers, *words_of(" ".join(map(" ".join, rows)))} <= {*words_of(text)}


def test_a_table_that_fits_is_left_alone():
    assert (
        fitted_table([["a", 1.5]], ["name", "value"])
        == "name      value\n------  -------\na           1.5"
    )


def test_the_first_column_comes_again_in_every_part():
    headers = ["run", *(f"a.rather.long.key.number.{i}" for i in range(6))]
    parts = fitted_table([["first", *range(6)]], headers).split("\n\n")
    assert len(parts) > 1
    assert all(part.startswith("run ") and "\nfirst " in part for part in parts)


@pytest.fixture
def detections():
    """Three classes of long names, one image."""
    names = ["a", "cardboard_box_with_a_name_that_is_much_too_long_for_a_column", "c"]
    boxes = [{"image_id": 1, "category_id": i, "bbox": [9 * i, 0, 8, 8]} for i in range(3)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i, "area": 64, **box} for i, box in enumerate(boxes)],
    }
    found = [{**box, "category_id": 1, "score": 0.9} for box in boxes]
    return coco_arrays(truth, found), names


def test_the_tables_of_an_evaluation_fit(detections):
    arrays, names = detections
    metrics = evaluate_boxes(arrays).metrics
    interval = Interval(low=10.0, high=100.0, level=0.95, num_resamples=1000)
    wide = dict.fromkeys(metrics.summary, 100.0)
    tables = [
        metrics_table(wide),
        summary_table(metrics, interval),
        class_metrics_table(metrics, dict(enumerate(names))),
        class_table(["class", "AP"], [[f"class number {i}", 1.0 * i] for i in range(80)]),
        class_table(["class", "AP"], [[name * 3, 1.0] for name in names]),
        confusion_table(confusion_matrix(arrays), names),
        confusion_table(confusion_matrix(arrays), [*"abc"]),
    ]
    for table in tables:
        assert fits(table), table
    assert [*wide] == [word for word in words_of(tables[0]) if word[0] == "A"]
    assert sum("class number" in line for line in tables[3].splitlines()) == 40
    assert "background" in tables[-1]
    assert "found as" in tables[-2]


def test_the_report_of_loaded_weights_and_the_table_of_groups_fit():
    names = ["a_module_with_a_rather_long_name_for_a_table.weight", "b.weight"]
    report = LoadReport(
        source="x.pth",
        kind="ours",
        fates={names[0]: "other shape", names[1]: "missing"},
        sizes=dict.fromkeys(names, 10**6),
    )
    assert fits(str(report))
    parameter = torch.nn.Parameter(torch.zeros(2))
    group = {"name": "backbone.res2.*, " * 6, "params": [parameter], "lr_factor": 0.1}
    table = group_table(torch.optim.SGD([group], lr=np.pi))
    assert fits(table)
    assert "3.142" in table


def test_the_environment_fits():
    text = wrapped(", ".join(f"{name} {value}" for name, value in environment().items()))
    assert fits(text)
    assert all(line.startswith("    ") for line in text.splitlines())
