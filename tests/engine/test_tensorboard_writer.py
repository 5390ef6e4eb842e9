"""Curves and pictures for TensorBoard, read back with its own reader."""

import shutil

import numpy as np
import pytest

from detlite import HookBase
from detlite.engine.hooks import TensorBoardWriter


class Values(HookBase):
    """A summary after every step, with the iteration as its value."""

    def after_step(self, trainer):
        trainer.summary = {"memory": 1.0, "value": float(trainer.iter)}


def events_of(folder):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


class Picture(HookBase):
    """A picture after the last step."""

    def after_step(self, trainer):
        trainer.pictures = {}
        if trainer.is_last_step:
            trainer.pictures = {"cat": np.full((8, 12, 3), 200, np.uint8)}


def test_tensorboard_has_curves_and_pictures(small_trainer, tmp_path):
    small_trainer(Values(), Picture(), TensorBoardWriter(output_dir=str(tmp_path))).train()
    events = events_of(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("value")] == [(i, i) for i in range(4)]
    (image,) = events.Images("pictures/cat")
    assert (image.step, image.width, image.height) == (3, 12, 8)


def test_tensorboard_hides_what_a_resumed_run_repeats(small_trainer, tmp_path):
    small_trainer(Values(), TensorBoardWriter(output_dir=str(tmp_path)), max_iter=4).train()
    second = small_trainer(Values(), TensorBoardWriter(output_dir=str(tmp_path)), max_iter=5)
    second.start_iter = 2
    second.train()
    steps = [event.step for event in events_of(tmp_path).Scalars("value")]
    assert steps == [0, 1, 2, 3, 4]


def test_tensorboard_goes_on_in_a_folder_that_was_removed(small_trainer, tmp_path):
    folder = tmp_path / "run"

    class Remove(HookBase):
        def after_step(self, trainer):
            if trainer.iter == 1:
                shutil.rmtree(folder)

    writer = TensorBoardWriter(output_dir=str(folder))
    small_trainer(Values(), writer, Remove()).train()
    assert [event.step for event in events_of(folder).Scalars("value")] == [2, 3]
