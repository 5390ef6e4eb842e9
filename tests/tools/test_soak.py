"""tools/soak.py: it proves an exact resume, and sees one that is not."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def soak(*arguments):
    command = [sys.executable, ROOT / "tools" / "soak.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def rows_of(table):
    lines = [line for line in table.splitlines() if re.match(r"\|\s+\d", line)]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    arguments = ["--kills", 6, "--during-checkpoint", 2, "--workers", 1]
    done = soak(*arguments, "--folder", tmp_path / "soak")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EXACT" in done.stdout
    rows = rows_of(done.stdout)
    assert len(rows) >= 6
    assert sum(row[3].startswith(".model_0") for row in rows) >= 2
    assert any(row[1] not in ("-", "0") for row in rows)  # some did go on from a checkpoint
    assert (tmp_path / "soak" / "workers_1" / "output" / "model_final.pth").exists()


FORGETFUL = """
import time
from detlite import HOOK_REGISTRY, HookBase

@HOOK_REGISTRY.register
class Forgetful(HookBase):
    # Of a run that was resumed the weights are moved a little.
    def before_train(self, trainer):
        if trainer.start_iter:
            next(iter(trainer.model.parameters())).data[0] += 1e-7
"""


@pytest.mark.slow
def test_a_resume_that_is_not_exact_is_seen(tmp_path):
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    arguments = ["--kills", 4, "--during-checkpoint", 1, "--workers", 0]
    overrides = [
        f"imports=['{tmp_path / 'forgetful.py'}']",
        "train.hooks=[{name: Forgetful}]",
        "solver.max_iter=17",
    ]
    done = soak(*arguments, "--folder", tmp_path / "soak", *overrides)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 workers: 4 kills" in done.stdout
    assert "DIFFERENT: 0 workers: model_0000015.pth: " in done.stdout
    assert re.search(r"DIFFERENT: 0 workers: attempt_\d+: iteration \d+: loss", done.stdout)
    assert "the runs and their logs are in" in done.stdout


@pytest.fixture
def run_soak(run_tool, monkeypatch):
    """Run it in this process, which can import the folder that it imports."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return lambda *arguments: run_tool("soak", *arguments)


def test_more_deaths_during_checkpoints_than_deaths_are_refused(run_soak):
    code, _, err = run_soak("--kills", 2, "--during-checkpoint", 3)
    assert code == 2
    assert "--during-checkpoint 3 must be 0 to --kills, which is 2" in err


def test_a_folder_that_is_not_empty_is_refused(run_soak, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run_soak("--folder", tmp_path)
    assert code == 2
    assert f"--folder {tmp_path} is not empty" in err
