"""Hooks of a run of several processes: they agree, and the main one alone writes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from detlite import load_config

pytestmark = pytest.mark.slow
SCRIPT = pathlib.Path(__file__).parent / "hooks_on_ranks.py"

# Seven test images, which three ranks share unevenly.
VALUES = [
    "data.batch_size=3",
    "data.test=[{name: Shapes, num_images: 7, seed: 9, image_size: [64, 64]}]",
    "train.hooks=[{name: ValidationLoss}, {name: PredictionPictures, num_images: 1},"
    " {name: EarlyStopping, metric: val/total_loss, mode: max, patience: 1}]",
    "test.eval_period=1",
    "train.ema={decay: 0.9}",
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, tiny_values):
    """The folder, and what each rank of one and of three has found."""
    config, values = tiny_values
    folder = tmp_path_factory.mktemp("ranks")
    subprocess.run(
        [sys.executable, SCRIPT, config, folder, *values, *VALUES],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return folder, json.loads((folder / "found.json").read_text())


def test_the_validation_loss_is_the_same_to_the_bit_on_any_number_of_ranks(outcomes):
    _, found = outcomes
    losses = [outcome["first_losses"] for ranks in found.values() for outcome in ranks]
    assert len(losses) == 4
    assert all(each == losses[0] for each in losses)
    assert losses[0]["total_loss"] > 0


def test_all_ranks_stop_early_together_with_the_same_results(outcomes):
    _, found = outcomes
    for ranks in found.values():
        assert ranks[0]["stop_reason"] == "early"
        for outcome in ranks:
            # The weights too: wearing the average has not cut the processes from each other.
            for key in ("results", "iter", "stop_reason", "weights"):
                assert outcome[key] == ranks[0][key]
        assert {"bbox", "val"} <= ranks[0]["results"].keys()


def test_only_the_main_process_writes(outcomes):
    folder, found = outcomes
    for world, ranks in found.items():
        assert {"ConsoleWriter", "JSONWriter", "RunSummary"} <= set(ranks[0]["hooks"])
        for outcome in ranks[1:]:
            assert not [n for n in outcome["hooks"] if n.endswith("Writer") or n == "RunSummary"]
        output = folder / f"run_{world}"
        lines = (output / "metrics.json").read_text().splitlines()
        assert len(lines) == ranks[0]["iter"] + 1
        assert len(list((output / "tensorboard").iterdir())) == 1
        assert f'"world_size": {world},' in (output / "summary.json").read_text()
        config = load_config(output / "config.yaml")
        assert config.data.batch_size == 3
