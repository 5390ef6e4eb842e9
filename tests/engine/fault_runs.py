"""A run of tools/train_net.py that is small enough to be broken in many ways."""

import functools
import importlib.util
import json
import os
import pathlib
import re
import sys

import pytest

from detlite.checkpoint import compare_checkpoints
from detlite.config.loader import import_component

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
PARTS = pathlib.Path(__file__).with_name("fault_parts.py")
parts = import_component(str(PARTS), "the tests")
# Every key that a checkpoint has something of; six steps, a checkpoint after every other one.
SMALL = [
    f"imports=['{PARTS}']",
    "data.train=[{name: Shapes, num_images: 12, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 2, seed: 9, image_size: [64, 64]}]",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.train_transforms=[{name: RandomHorizontalFlip}]",
    "model.backbone={out_features: [res2, res3]}",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "solver.max_iter=6",
    "solver.schedule.warmup_iters=2",
    "train.accumulate=2",
    "train.ema={decay: 0.9, warmup: 4}",
    "train.log_period=1",
    "train.checkpoint_period=2",
    "train.checkpoint_keep=3",
    "train.hooks=[{name: DoAt}, {name: TensorBoardWriter, enabled: false}]",
]
OF_THE_CLOCK = {"time", "data_time", "memory"}


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The output folder of the run that nothing befell; one for all files of tests."""
    return _whole(tmp_path_factory.getbasetemp())


@functools.cache
def _whole(folder):
    assert run_train_net(folder / "whole_run") == 0
    return folder / "whole_run"


def command_line(output_dir, *arguments):
    """Arguments of tools/train_net.py."""
    return ["--config-file", str(QUICKSTART), *SMALL, f"output_dir={output_dir}", *arguments]


def run_train_net(output_dir, *arguments, actions=None):
    """Run tools/train_net.py in this process; returns the exit code.

    Args:
        output_dir: Of the run.
        arguments: Further ones.
        actions: What is done before an iteration, by its number, given the trainer.
    """
    spec = importlib.util.spec_from_file_location("train_net_to_break", ROOT / "tools/train_net.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    argv, sys.argv = sys.argv, ["train_net.py", *command_line(output_dir, *arguments)]
    parts.ACTIONS.update(actions or {})
    try:
        tool.run_cli(tool.main, tool.parser())
    except SystemExit as error:
        return error.code
    finally:
        sys.argv = argv
        parts.ACTIONS.clear()
    return 0


def send(number):
    """An action: a signal to this process."""
    return lambda trainer: os.kill(os.getpid(), number)


def differences(whole, other):
    """In what the ends of two runs differ: the last checkpoint, the weights, the metrics."""
    found = []
    for name in ("model_0000005.pth", "model_final.pth", "model_best.pth"):
        found += compare_checkpoints(whole / name, other / name)[1]
    # How often workers were lost is counted, and is all that may be left of it.
    found = [line for line in found if not re.match(r"loader\.\d+\.faults\.", line)]
    if metrics(whole) != metrics(other):
        found.append(f"metrics.json: {metrics(whole)} and {metrics(other)}")
    return found


def metrics(output_dir):
    """The lines of metrics.json without what a clock says."""
    lines = (output_dir / "metrics.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [{k: v for k, v in e.items() if k not in OF_THE_CLOCK} for e in entries]


def checkpoints(output_dir):
    """The iterations of the periodic checkpoints."""
    return sorted(int(path.stem[6:]) for path in output_dir.glob("model_0*.pth"))
