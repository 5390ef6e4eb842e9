"""Configs for another batch size."""

import pathlib

import pytest

from detlite import load_config
from detlite.solver import scale_to_batch

CONFIG = pathlib.Path(__file__).parents[2] / "configs/retinanet/retinanet_r50_fpn_1x_coco.yaml"


@pytest.fixture
def scaled():
    """Make detectron2's recipe, for 16 images, one for another batch, after a few overrides."""

    def make(*overrides, batch=16):
        every = ["solver.reference_batch_size=16", f"data.batch_size={batch}", *overrides]
        return scale_to_batch(load_config(CONFIG, every))

    return make
