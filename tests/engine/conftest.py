"""A run small enough for a test: a few generated images, a narrow model."""

import pathlib

import pytest
import torch
from torch import nn

from detlite import Trainer, build_trainer, load_config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TINY = [
    "data.train=[{name: Shapes, num_images: 12, image_size: [64, 64]}]",
    "data.test=[{name: Shapes, num_images: 4, seed: 9, image_size: [64, 64]}]",
    "data.batch_size=2",
    "data.num_workers=0",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "solver.max_iter=4",
    "solver.schedule.warmup_iters=2",
    "train.precision=fp32",
    "train.log_period=2",
    "train.hooks=[{name: PredictionPictures, num_images: 2}]",
    "test.batch_size=2",
    "test.precision=fp32",
]


@pytest.fixture(scope="session")
def tiny_values():
    """The file and the overrides of a tiny config, for a process of its own."""
    return CONFIGS / "quickstart.yaml", TINY


@pytest.fixture
def tiny_config(tmp_path):
    """Make a config from the quickstart's with a few overrides, writing into ``tmp_path/run``."""

    def make(*overrides, output="run"):
        every = [*TINY, f"output_dir={tmp_path / output}", *overrides]
        return load_config(CONFIGS / "quickstart.yaml", every)

    return make


@pytest.fixture
def train(tiny_config):
    """Train a tiny config; returns the trainer after its run."""

    def run(*overrides, output="run", resume=False):
        trainer = build_trainer(tiny_config(*overrides, output=output), resume=resume)
        trainer.train()
        return trainer

    return run


class _Distance(nn.Module):
    """Loss 0.5 * |w - x|^2, whose steps can be worked by hand."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, batch):
        return {"loss_a": 0.5 * ((self.w - batch[0]["x"]) ** 2).sum()}


@pytest.fixture
def small_trainer():
    """Make a trainer of two weights, with hooks in order; a step takes no time at all."""

    def make(*hooks, max_iter=4, **arguments):
        model = _Distance()
        loader = [[{"x": torch.tensor([1.0, 2.0])}]] * 100
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return Trainer(model, optimizer, loader, max_iter=max_iter, hooks=hooks, **arguments)

    return make
