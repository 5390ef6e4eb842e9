"""inference_on_dataset: the model's modes, progress, several evaluators, two processes."""

import json
import logging
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from torch import nn

from detlite.evaluation import COCOEvaluator, DatasetEvaluator, VOCEvaluator, inference_on_dataset


class Recorder(DatasetEvaluator):
    """Counts images and remembers how the model was run."""

    def __init__(self, task="task"):
        self.task = task

    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {self.task: {"images": self.images}}


class Model(nn.Module):
    """Two parts, of which one is frozen in eval mode; asserts that it is run for inference."""

    def __init__(self, fails=False):
        super().__init__()
        self.frozen = nn.BatchNorm2d(3).eval()
        self.trained = nn.Sequential(nn.Dropout(), nn.Conv2d(3, 3, 1))
        self.fails = fails

    def forward(self, batch):
        assert not any(module.training for module in self.modules())
        assert torch.is_inference_mode_enabled()
        if self.fails:
            raise FloatingPointError
        return [{"instances": None} for _ in batch]


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_keeps_its_training_mode(fails):
    model = Model(fails)
    before = modes(model)
    assert before == [True, False, True, True, True]
    try:
        inference_on_dataset(model, [[{}, {}]], Recorder())
    except FloatingPointError:
        assert fails
    assert modes(model) == before
    assert not torch.is_inference_mode_enabled()


def test_results_of_several_evaluators_are_merged():
    loader = [[{}, {}], [{}]]
    results = inference_on_dataset(Model(), loader, [Recorder("a"), Recorder("b")])
    assert results == {"a": {"images": 3}, "b": {"images": 3}}
    with pytest.raises(ValueError, match="two evaluators return 'a'"):
        inference_on_dataset(Model(), loader, [Recorder("a"), Recorder("a")])


def test_a_plain_function_can_be_evaluated_but_must_answer_for_each_image():
    assert inference_on_dataset(lambda b: b, [[{}, {}]], Recorder()) == {"task": {"images": 2}}
    with pytest.raises(ValueError, match="2 images went in, 0 outputs came out"):
        inference_on_dataset(lambda b: [], [[{}, {}]], Recorder())


def test_without_a_terminal_lines_tell_speed_and_time_left(caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    caplog.set_level(logging.INFO, "detlite")
    inference_on_dataset(Model(), [[{}]] * 4, Recorder(), log_period=0)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5
    assert lines[0].startswith("inference: 1/4 batches, ")
    assert "images/s, ETA 0:0" in lines[0]
    assert lines[-1].startswith("inference done: 4 images in ")
    caplog.clear()
    inference_on_dataset(Model(), iter([[{}]] * 4), Recorder(), log_period=0)
    assert "ETA" not in caplog.text


def test_lines_count_images_where_the_loader_knows_its_data_set(caplog):
    class Loader(list):
        dataset = range(7)

    caplog.set_level(logging.INFO, "detlite")
    inference_on_dataset(Model(), Loader([[{}, {}]] * 3 + [[{}]]), Recorder(), log_period=0)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in lines[:4]] == [
        f"inference: {done}/7 images" for done in (2, 4, 6, 7)
    ]
    assert all("ETA 0:0" in line for line in lines[:4])


def test_on_a_terminal_a_bar_shows(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    inference_on_dataset(Model(), [[{}]] * 4, Recorder())
    assert "4/4" in capsys.readouterr().err


def test_on_a_terminal_the_log_has_its_lines_too(caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    caplog.set_level(logging.INFO, "detlite")
    inference_on_dataset(Model(), [[{}]] * 4, Recorder(), log_period=0)
    assert "inference: 1/4 batches" in caplog.text


def test_coco_and_voc_evaluators_run_side_by_side(case):
    content, results = case.random(0)
    truth = case.ground_truth(content)
    pairs = case.outputs(truth, results)
    outputs = {entry["image_id"]: output for entry, output in pairs}
    values = inference_on_dataset(
        lambda batch: [outputs[entry["image_id"]] for entry in batch],
        [[entry] for entry, _ in pairs],
        [
            COCOEvaluator(dataset=truth),
            VOCEvaluator(dataset=truth),
            VOCEvaluator(dataset=truth, method="11point"),
        ],
    )
    assert list(values) == ["bbox", "voc", "voc07"]
    assert values["bbox"]["AP50"] > 0


@pytest.mark.slow
def test_two_processes_with_uneven_shares_give_the_numbers_of_one(case, tmp_path):
    content, results = case.random(5)
    truth = case.ground_truth(content)
    expected = case.evaluated(COCOEvaluator(dataset=truth), case.outputs(truth, results))
    worker = pathlib.Path(__file__).parent / "evaluate_a_share.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, worker, str(rank), tmp_path, "5"], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == {"results": expected, "failure": ["DataError", "RuntimeError"][rank]}
    assert (tmp_path / "inference" / "results.json").exists()
