"""What may befall the data of a run, end to end, and what the config's policies make of it."""

import multiprocessing
import os
import pathlib
import re
import signal

import pytest

from detlite.config.loader import import_component

runs = import_component(str(pathlib.Path(__file__).with_name("fault_runs.py")), "the tests")
train, whole = runs.run_train_net, runs.whole


def faulty(fault, mark=""):
    """The override that makes the image with index 5 fail, once if there is a mark."""
    return (
        f"data.train=[{{name: FaultyShapes, bad: 5, fault: '{fault}', mark: '{mark}', "
        "num_images: 12, image_size: [64, 64]}]"
    )


def test_a_worker_that_is_killed_between_samples_is_replaced(whole, tmp_path, capsys):
    def kill_worker(trainer):
        workers = multiprocessing.active_children()
        assert workers
        os.kill(workers[0].pid, signal.SIGKILL)

    actions = {1: kill_worker, 4: kill_worker}
    assert train(tmp_path / "run", "data.num_workers=1", actions=actions) == 0
    assert "was killed by SIGKILL" in capsys.readouterr().err
    assert runs.differences(whole, tmp_path / "run") == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("die", "was killed by SIGKILL"),
        pytest.param("hang", "was at one sample for", marks=pytest.mark.slow),
    ],
)
def test_a_lost_sample_is_tried_again(fault, told, whole, tmp_path, capsys):
    once = faulty(fault, tmp_path / "mark")
    limits = ["data.num_workers=1", "data.sample_timeout=0.5"]
    assert train(tmp_path / "run", once, *limits) == 0
    err = capsys.readouterr().err
    assert told in err
    assert "000006.png" in err  # by its name
    assert runs.differences(whole, tmp_path / "run") == []


@pytest.mark.parametrize("policy", ["retry", "skip", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_sample_that_is_lost_every_time_follows_the_policy(policy, tmp_path, capsys):
    overrides = ["data.num_workers=1", f"data.lost_sample={policy}"]
    code = train(tmp_path / "run", faulty("die"), *overrides)
    told = capsys.readouterr().err
    assert "000006.png" in told
    assert code == (0 if policy == "skip" else 2)
    assert ("another image takes its place" in told) == (policy == "skip")
    assert (tmp_path / "run" / "model_final.pth").exists() == (policy == "skip")


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_unreadable_image_follows_the_policy(policy, tmp_path, capsys):
    path = tmp_path / "cut.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    code = train(tmp_path / "run", faulty(path), f"data.broken_image={policy}")
    told = capsys.readouterr().err
    assert "cut.png" in told
    assert code == (0 if policy == "skip" else 2)
    assert ("skipped an image" in told) == (policy == "skip")


@pytest.mark.slow
def test_a_skipped_sample_is_skipped_by_the_resumed_run_too(tmp_path):
    overrides = [faulty("die"), "data.num_workers=1", "data.lost_sample=skip"]
    assert train(tmp_path / "once", *overrides) == 0
    stop = {4: lambda trainer: os.kill(os.getpid(), signal.SIGTERM)}
    assert train(tmp_path / "run", *overrides, actions=stop) == 75
    assert train(tmp_path / "run", *overrides, "--resume") == 0
    assert runs.differences(tmp_path / "once", tmp_path / "run") == []


# ---- the check of the user's own config -------------------------------------------------------


def test_check_resume_finds_that_a_run_resumes_exactly(tmp_path, capsys):
    assert train(tmp_path / "run", "--check-resume", "data.num_workers=1") == 0
    told = capsys.readouterr().err
    assert "exact: interrupted after iteration 2, resumed" in told
    assert "equal bit for bit" in told
    assert not (tmp_path / "run").exists()


def test_check_resume_names_what_a_resume_does_not_bring_back(tmp_path, capsys):
    hooks = "train.hooks=[{name: Drift}]"
    assert train(tmp_path / "run", "--check-resume", hooks) == 2
    told = capsys.readouterr().err
    assert "a resumed run of this config differs in" in told
    assert re.search(r"ema\.backbone\S+: \d+ of \d+ values", told)
    assert "keeps state of its own outside state_dict()" in told
