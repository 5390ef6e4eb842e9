"""Several processes train one model: evaluation, restarts, other numbers of them, and failures."""

import json
import os
import signal
import time

import pytest
import torch

from detlite.checkpoint import compare_checkpoints, load_checkpoint

FAULT = "train.hooks=[{{name: RecordSamples}}, {{name: Fault, what: {}, rank: {}, iteration: {}}}]"
SHORT = ["solver.max_iter=2", "test.eval_period=0", "train.log_period=2"]


def check(ended, *codes):
    assert ended.codes == list(codes), ended.text


def differences(first, second):
    number, found = compare_checkpoints(first, second)
    assert number > 50
    return found


def metrics(folder):
    """The lines of metrics.json, but for what a clock and the machine say."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    measured = {"time", "data_time", "memory"}
    return [{k: v for k, v in line.items() if k not in measured} for line in lines]


@pytest.fixture
def trained(groups):
    """The weights of a short run in one process."""
    check(groups.run(1, *SHORT, output="one"), 0)
    return groups.folder / "one" / "model_final.pth"


def test_uneven_shares_are_evaluated_as_by_one_process(groups, trained):
    # 3 images on 4 ranks leave one without any.
    for processes in (1, 4):
        arguments = ("--eval-only", f"model.weights={trained}")
        ended = groups.run(processes, *arguments, output=f"eval_{processes}")
        check(ended, *[0] * processes)
        assert ended.text.count("inference done") == 2
    for dataset, num_images in (("shapes_9", 5), ("shapes_8", 3)):
        one, four = (groups.folder / f"eval_{n}" / "inference" / dataset for n in (1, 4))
        results = json.loads((one / "results.json").read_text())
        assert results["bbox"]["AR100"] > 0
        assert json.loads((four / "results.json").read_text()) == results
        found, found_one = (
            json.loads((folder / "coco_instances_results.json").read_text())
            for folder in (four, one)
        )
        assert len({box["image_id"] for box in found}) == num_images
        assert found == found_one


@pytest.mark.slow
def test_only_the_first_process_writes_and_logs(groups):
    everything = ["train.precision=auto", "data.num_workers=1", "train.accumulate=2"]
    ended = groups.run(2, *everything)
    check(ended, 0, 0)
    folder = groups.folder / "run"
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(8))
    assert "shapes_9/bbox/AP" in lines[3]
    assert "shapes_9/bbox/AP" in lines[7]
    assert ended.text.count("iter: 3/8") == 1
    assert ended.text.count("saved ") == (folder / "log.txt").read_text().count("saved ")
    last = load_checkpoint(folder / "model_0000007.pth")
    assert len(last["random"]) == 2
    assert last["ema_updates"] == 8
    names = {path.name for path in folder.iterdir() if path.suffix == ".pth"}
    assert names == {
        f"model_{n}.pth" for n in ("best", "final", "final_plain", "0000005", "0000007")
    }


@pytest.mark.slow
def test_processes_come_and_go_and_the_batches_stay(groups):
    # What makes little of the last digit of a gradient, and statistics of no part of a batch.
    keys = ["model.backbone.norm=FrozenBN", "solver.optimizer={name: SGD, lr: 0.001}"]
    check(groups.run(1, *keys, output="whole"), 0)
    expected, losses = groups.samples("whole")
    assert len(expected) == 8
    # The signal reaches one process; all stop after the same step.
    for processes, last in ((2, 1), (4, 3), (3, 5)):
        fault = FAULT.format("SIGTERM", processes - 1, last)
        ended = groups.run(processes, fault, *keys, "--resume")
        check(ended, *[75] * processes)
        assert ended.text.count(f"stopped after iteration {last}") == 1
    check(groups.run(1, *keys, "--resume"), 0)
    found, found_losses = groups.samples()
    assert found == expected
    assert found_losses == pytest.approx(losses, rel=1e-5)
    one, many = (
        load_checkpoint(groups.folder / name / "model_0000007.pth") for name in ("whole", "run")
    )
    for name, value in one["model"].items():
        torch.testing.assert_close(many["model"][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on_in_the_same_bits(groups):
    # A checkpoint of these holds metrics that no line has told yet.
    periods = ["train.log_period=3", "test.eval_period=3"]
    check(groups.run(3, *periods, output="whole"), 0, 0, 0)
    ended = groups.run(3, *periods, FAULT.format("SIGKILL", 1, 4))
    check(ended, 1, -9, 1)
    ended = groups.run(3, *periods, "--resume", "data.num_workers=1")
    check(ended, 0, 0, 0)
    assert "going on at iteration 4" in ended.text
    names = ("model_0000005.pth", "model_0000007.pth", "model_final.pth", "model_best.pth")
    for name in names:
        assert differences(groups.folder / "whole" / name, groups.folder / "run" / name) == []
    lines = [metrics(groups.folder / name) for name in ("whole", "run")]
    assert lines[0] == lines[1]
    assert len(lines[0]) >= 3


def test_a_signal_to_one_process_ends_the_evaluation_of_all_and_resume_repeats_it(groups):
    # Rank 1 has fewer images, and waits for the other: it must not be left in a collective.
    keys = ["solver.max_iter=3", "test.eval_period=2", "train.log_period=1"]
    keys.append("test.evaluators=[{name: COCOEvaluator}, {name: StoppedEvaluator, rank: 0}]")
    ended = groups.run(2, *keys)
    check(ended, 75, 75)
    assert (
        ended.text.count("stopping in Evaluation, which --resume repeats, after iteration 1") == 1
    )
    assert (groups.folder / "run" / "model_0000001.pth").is_file()
    assert len(metrics(groups.folder / "run")) == 1
    ended = groups.run(2, *keys, "--resume")
    check(ended, 0, 0)
    lines = metrics(groups.folder / "run")
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    for line in lines[1:]:
        assert line["shapes_9/stopped/done"] == line["shapes_8/stopped/done"] == 1
        assert "shapes_9/bbox/AP" in line


@pytest.mark.slow
def test_one_process_asks_for_a_checkpoint(groups):
    fault = FAULT.format("SIGUSR1", 1, 2)
    check(groups.run(2, fault, "solver.max_iter=4", "train.checkpoint_keep=5"), 0, 0)
    assert (groups.folder / "run" / "model_0000002.pth").is_file()


@pytest.mark.parametrize(
    ("codes", "rank", "fault"),
    [
        ((1, 1), 0, FAULT.format("error", 0, 1)),
        ((1, 2), 1, FAULT.format("broken image", 1, 1)),
        pytest.param(
            (1, 1),
            1,
            "test.evaluators=[{name: FailingEvaluator, rank: 1}]",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failure_of_one_process_ends_all(groups, codes, rank, fault):
    ended = groups.run(2, fault, "solver.max_iter=3")
    check(ended, *codes)
    assert ended.text.count(f"rror: planted in rank {rank}") >= 1
    # Both have ended by themselves, long before the limit, as one lost the other.
    assert not (groups.folder / "run" / "model_final.pth").exists()


@pytest.mark.slow
def test_a_hanging_process_ends_the_others_in_time(groups):
    groups.start(2, FAULT.format("SIGSTOP", 1, 1), "train.collective_timeout=2")
    deadline = time.monotonic() + 60
    while "Timed out" not in groups.text() and time.monotonic() < deadline:
        time.sleep(0.1)
    noticed = "Timed out" in groups.text()
    os.kill(groups.processes[1], signal.SIGKILL)
    check(groups.wait(), 1, -9)
    assert noticed


def test_a_mistake_is_told_once(groups):
    ended = groups.run(4, "model.neck.out_chanels=3")
    check(ended, 2, 2, 2, 2)
    assert ended.text.count("error:") == 1
    assert "out_chanels" in ended.text
    ended = groups.run(3, "data.batch_size=5")
    check(ended, 2, 2, 2)
    assert ended.text.count("error: data.batch_size is 5") == 1
    assert "Traceback" not in ended.text
    (groups.folder / "run" / "last_checkpoint").write_text("model_0000001.pth")
    ended = groups.run(3)
    check(ended, 2, 2, 2)
    assert ended.text.count("holds a run already") == 1
    assert "Traceback" not in ended.text


def launched(run_id):
    return {"TORCHELASTIC_RUN_ID": run_id}


@pytest.mark.slow
def test_what_torchrun_starts_again_goes_on_and_what_somebody_else_starts_does_not(groups):
    # The checkpoint of iteration 3 is not begun before that of iteration 1 has been written.
    fault = FAULT.format("SIGKILL", 0, 4)
    first = groups.run(1, fault, environment=launched("job"))
    check(first, -9)
    # Another torchrun.
    refused = groups.run(1, fault, environment=launched("other"))
    check(refused, 2)
    assert "holds a run already" in refused.text
    # The same once more: also where the count of starts is that of another machine.
    again = groups.run(1, fault, environment=launched("job"))
    check(again, 0)
    assert "going on at iteration" in again.text
    assert groups.samples()[0].keys() == set(range(8))


@pytest.mark.slow
def test_a_job_that_has_moved_to_another_machine_does_not_overwrite_itself(groups):
    folder = groups.folder / "run"
    check(groups.run(1, *SHORT, environment=launched("job")), 0)
    (folder / ".launch").write_text("job\nmachine-1 4711\n")
    refused = groups.run(1, *SHORT, "--overwrite", environment=launched("job"))
    check(refused, 2)
    assert "another --rdzv-id" in refused.text
    assert (folder / "model_final.pth").is_file()
    check(groups.run(1, *SHORT, "--overwrite", environment=launched("next")), 0)


def test_processes_do_not_call_those_of_an_earlier_start(groups):
    arguments = [*SHORT, FAULT.format("SIGKILL", 1, 0), "--resume"]
    check(groups.run(2, *arguments), 1, -9)
    # torchrun's store outlives them, and the others are there first.
    check(groups.run(2, *arguments, same_store=True, delays={0: 1.0}), 0, 0)
