"""tools/compare_runs.py: one row a run, finished or not."""

import csv
import json
import subprocess
import sys

import pytest
import yaml

from detlite.checkpoint import RunLock

CONFIG = {
    "output_dir": "somewhere",
    "model": {"name": "RetinaNet", "backbone": {"depth": 50}},
    "data": {"train": [{"name": "Shapes", "seed": 1}]},
    "solver": {"optimizer": {"lr": 0.01}, "max_iter": 100},
}


def write_run(folder, *, lr=0.01, depth=50, summary=None, lines=()):
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(CONFIG))
    config["output_dir"] = str(folder)
    config["solver"]["optimizer"]["lr"] = lr
    config["model"]["backbone"]["depth"] = depth
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    if lines:
        (folder / "metrics.json").write_text("".join(json.dumps(e) + "\n" for e in lines))


def done(ap, best=None, loss=0.5):
    return {
        "status": "done",
        "iterations": 100,
        "max_iter": 100,
        "training_seconds": 3725.4,
        "metrics": {"bbox/AP": ap, "val/total_loss": loss},
        "best": {
            "bbox/AP": {"value": best or ap, "iteration": 79},
            "val/total_loss": {"value": loss, "iteration": 99},
        },
    }


@pytest.fixture
def runs(tmp_path):
    """Three runs: a finished one, a better one deeper down, one that was killed."""
    top = tmp_path / "output"
    write_run(top / "a", summary=done(30.0, best=31.0))
    write_run(top / "deep/b", lr=0.02, summary=done(40.0, loss=0.9))
    lines = [
        {"iteration": 19, "loss_cls": 1.0},
        {"iteration": 39, "bbox/AP": 35.0, "val/total_loss": 0.7},
        {"iteration": 59, "bbox/AP": None},
        {"iteration": 79, "bbox/AP": 34.0, "val/total_loss": 0.8},
    ]
    write_run(top / "c", depth=18, lines=lines)
    with (top / "c/metrics.json").open("a") as file:
        file.write('{"iteration": 99, "bbo')
    return top


def table(out):
    """The printed table as dicts; columns stand where the line of dashes has them."""
    parts = [part.splitlines() for part in out.split("\n\n") if "\n---" in part]
    found = [{} for _ in parts[0][2:]]
    for header, dashes, *rows in parts:
        starts = [0] + [i + 2 for i in range(len(dashes)) if dashes[i : i + 2] == "  "]
        cut = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
        names = [header[part].strip() for part in cut]
        for row, cells in zip(rows, found, strict=True):
            cells |= zip(names, (row[part].strip() for part in cut), strict=True)
    return found


def test_the_best_run_comes_first_with_what_differs(run_tool, runs):
    code, out, err = run_tool("compare_runs", runs)
    assert code == 0, err
    rows = table(out)
    assert [row["run"] for row in rows] == ["deep/b", "c", "a"]
    assert [row["best bbox/AP"] for row in rows] == ["40.0000", "35.0000", "31.0000"]
    assert [row["final bbox/AP"] for row in rows] == ["40.0000", "34.0000", "30.0000"]
    assert [row["at"] for row in rows] == ["79", "39", "79"]
    assert [row["val/total_loss"] for row in rows] == ["0.9000", "0.8000", "0.5000"]
    assert [row["solver.optimizer.lr"] for row in rows] == ["0.02", "0.01", "0.01"]
    assert [row["model.backbone.depth"] for row in rows] == ["50", "18", "50"]
    assert not {"output_dir", "solver.max_iter", "data.train.0.seed"} & rows[0].keys()
    assert [row["time"] for row in rows] == ["1:02:05", "-", "1:02:05"]


def test_the_table_fits_a_terminal(run_tool, runs):
    code, out, _ = run_tool("compare_runs", runs, "--keys", "solver.optimizer.lr,data.train.0.name")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_run_without_summary_is_read_off_its_metrics(run_tool, runs):
    row = next(r for r in table(run_tool("compare_runs", runs)[1]) if r["run"] == "c")
    assert (row["status"], row["iterations"]) == ("unknown", "80/100")


def test_losses_sort_the_other_way(run_tool, runs):
    rows = table(run_tool("compare_runs", runs, "--metric", "val/total_loss")[1])
    assert [row["run"] for row in rows] == ["a", "c", "deep/b"]


def test_runs_that_have_not_been_measured_come_last(run_tool, runs):
    write_run(runs / "aa", summary={"status": "running", "iterations": 0, "max_iter": 100})
    rows = table(run_tool("compare_runs", runs)[1])
    assert rows[-1]["run"] == "aa"
    assert rows[-1]["best bbox/AP"] == "-"


def test_running_is_told_from_killed_by_the_lock(run_tool, runs):
    running = {"status": "running", "iterations": 40, "max_iter": 100}
    write_run(runs / "d", summary=running, lines=[{"iteration": 59, "loss_cls": 1.0}])
    write_run(runs / "e", summary=running)
    (runs / "e/.lock").write_text("")
    with RunLock(runs / "d"):
        rows = {row["run"]: row for row in table(run_tool("compare_runs", runs)[1])}
        # Looking has not taken the lock away.
        again = {row["run"]: row for row in table(run_tool("compare_runs", runs)[1])}
    assert (rows["d"]["status"], rows["d"]["iterations"]) == ("running", "60/100")
    assert again["d"]["status"] == "running"
    assert rows["e"]["status"] == "killed"
    assert table(run_tool("compare_runs", runs)[1])[-1]["status"] == "killed"


def test_a_lock_of_another_process_is_seen(run_tool, runs):
    write_run(runs / "d", summary={"status": "running", "iterations": 40, "max_iter": 100})
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); " \
        "print(flush=True); sys.stdin.read()"  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", hold, runs / "d/.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        assert table(run_tool("compare_runs", runs)[1])[-1]["status"] == "running"
        process.kill()
    assert table(run_tool("compare_runs", runs)[1])[-1]["status"] == "killed"


def test_keys_and_csv(run_tool, runs, tmp_path):
    path = tmp_path / "runs.csv"
    keys = "solver.max_iter,no.such"
    code, out, _ = run_tool("compare_runs", runs, "--keys", keys, "--csv", path)
    assert code == 0
    assert {row["solver.max_iter"] for row in table(out)} == {"100"}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["deep/b", "c", "a"]
    assert rows[0]["no.such"] == "-"


def test_a_csv_that_cannot_be_written_is_told(run_tool, runs, tmp_path):
    code, _, err = run_tool("compare_runs", runs, "--csv", tmp_path)
    assert code == 2
    assert f"--csv {tmp_path} cannot be written" in err


def test_one_run_is_a_table_too(run_tool, runs):
    (row,) = table(run_tool("compare_runs", runs / "a")[1])
    assert row["run"] == "a"


def test_several_folders_keep_their_names(run_tool, runs, monkeypatch):
    monkeypatch.chdir(runs)
    rows = table(run_tool("compare_runs", "a", "deep", "deep/b")[1])
    assert {row["run"] for row in rows} == {"a", "deep/b"}


def test_broken_files_are_no_end_of_the_table(run_tool, runs):
    (runs / "a/summary.json").write_text('{"status": "do')
    (runs / "c/config.yaml").write_text("a: [")
    code, out, err = run_tool("compare_runs", runs)
    assert code == 0, err
    status = {row["run"]: row["status"] for row in table(out)}
    assert status == {"deep/b": "done", "a": "unknown", "c": "unknown"}


def test_mistakes_are_told(run_tool, runs, tmp_path):
    code, _, err = run_tool("compare_runs", runs / "no")
    assert code == 2
    assert "is not a folder" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run_tool("compare_runs", tmp_path / "empty")
    assert code == 2
    assert "a run's folder holds a config.yaml" in err
    code, _, err = run_tool("compare_runs", runs, "--metric", "bbox/APP")
    assert code == 2
    assert "did you mean 'bbox/AP'?" in err
