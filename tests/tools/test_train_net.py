"""tools/train_net.py: train, go on, evaluate, from any directory."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import yaml

from detlite.checkpoint import load_checkpoint

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = ROOT / "configs/quickstart.yaml"
TINY = [
    "data.train=[{name: Shapes, num_images: 8, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 3, seed: 9, image_size: [64, 64]}]",
    "data.num_workers=0",
    "data.batch_size=2",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "train.hooks=[]",
    "train.log_period=1",
]


def train(run_tool, *arguments):
    return run_tool("train_net", "--config-file", QUICKSTART, *arguments, *TINY)


def test_a_run_is_trained_continued_and_evaluated_from_any_directory(
    run_tool, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = train(run_tool, "solver.max_iter=2", "output_dir=run")
    assert code == 0, err
    assert "iter: 1/2" in err
    code, _, err = train(run_tool, "solver.max_iter=3", "output_dir=run", "--resume")
    assert code == 0, err
    assert "going on at iteration 2" in err
    assert load_checkpoint("run/model_final.pth")["iteration"] == 2
    code, _, err = train(run_tool, "output_dir=run", "--eval-only")
    assert code == 0, err
    assert "box AP and AR of 'shapes_9'" in err


def test_an_earlier_run_is_not_overwritten_unasked(run_tool, tmp_path):
    output = f"output_dir={tmp_path / 'run'}"
    assert train(run_tool, "solver.max_iter=1", output)[0] == 0
    code, _, err = train(run_tool, "solver.max_iter=1", output)
    assert code == 2
    assert "holds a run already; --resume goes on with it" in err
    assert train(run_tool, "solver.max_iter=1", output, "--overwrite")[0] == 0


def test_the_printed_config_is_yaml_with_the_place_of_each_value(run_tool):
    code, out, _ = run_tool(
        "train_net", "--config-file", QUICKSTART, "--print-config", "solver.max_iter=7"
    )
    assert code == 0
    assert yaml.safe_load(out)["solver"]["max_iter"] == 7
    assert "max_iter: 7" in out
    assert "# override 'solver.max_iter=7'" in out
    assert "quickstart.yaml:" in out
    assert "_base_/models/retinanet_r50_fpn.yaml:" in out
    assert "# default" in out


def test_eval_only_without_weights_says_what_is_missing(run_tool, tmp_path):
    code, _, err = train(run_tool, "--eval-only", f"output_dir={tmp_path}")
    assert code == 2
    assert "--eval-only needs weights: give --weights PATH" in err


def test_ctrl_c_ends_cleanly_with_a_checkpoint(tmp_path):
    command = [sys.executable, ROOT / "tools/train_net.py", "--config-file", QUICKSTART, *TINY]
    process = subprocess.Popen(
        [*command, f"output_dir={tmp_path / 'run'}", "solver.max_iter=9000", "data.num_workers=1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "iter: 2/" in line:
            break
    # As a terminal does: the workers get it too.
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 75, "".join(seen) + rest
    process.stderr.close()
    assert "stopping after this step; Ctrl-C again stops at once" in rest
    assert "Traceback" not in rest
    stopped = re.search(r"stopped after iteration (\d+); --resume goes on", rest)
    last = (tmp_path / "run" / "last_checkpoint").read_text()
    assert last == f"model_{int(stopped[1]):07d}.pth"
    assert load_checkpoint(tmp_path / "run" / last)["iteration"] == int(stopped[1])
