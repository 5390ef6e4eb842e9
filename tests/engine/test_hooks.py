"""Hooks in a real run, and how YAML changes them."""

import json
import logging
import math
import random

import cv2
import pytest
import torch

from detlite import HOOK_REGISTRY, HookBase, build_trainer
from detlite.checkpoint import load_checkpoint
from detlite.engine import hooks
from detlite.errors import ConfigError
from detlite.utils.events import MetricBuffer


def names(trainer):
    return [type(hook).__name__ for hook in trainer.hooks]


def test_a_run_leaves_its_files(train, tmp_path):
    train()
    found = {p.name for p in (tmp_path / "run").iterdir()}
    assert found >= {
        "config.yaml",
        "metrics.json",
        "model_0000003.pth",
        "model_best.pth",
        "model_final.pth",
        "last_checkpoint",
        "inference",
        "pictures",
        "pictures.jpg",
        "tensorboard",
    }
    results = json.loads((tmp_path / "run/inference/shapes_9/results.json").read_text())
    assert "AP50" in results["bbox"]
    assert cv2.imread(str(tmp_path / "run/pictures.jpg")) is not None


def test_a_run_keeps_what_checkpoint_keep_says_and_states_its_use_of_the_disk(
    train, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "detlite")
    train("train.checkpoint_period=1", "train.checkpoint_keep=2", "test.eval_period=2")
    files = {p.name: p.stat().st_size for p in (tmp_path / "run").glob("*.pth")}
    periodic = {"model_0000002.pth", "model_0000003.pth"}
    assert files.keys() == periodic | {"model_best.pth", "model_final.pth"}
    last = next(m for m in caplog.messages if m.startswith("the checkpoints take"))
    assert f"{sum(files.values()) / 1e6:,.1f} MB" in last
    assert all(name in last for name in files)


def test_metrics_are_one_json_a_line(train, tmp_path):
    train("test.eval_period=3")
    text = (tmp_path / "run/metrics.json").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    # Every second iteration, the evaluation after the third, the end.
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert {"total_loss", "loss_cls", "loss_box", "lr", "time", "data_time"} <= lines[0].keys()
    assert "bbox/AP" in lines[1]


def test_log_lines_can_be_read_by_a_script(train, caplog):
    with caplog.at_level(logging.INFO, logger="detlite"):
        train()
    line = next(m for m in caplog.messages if m.startswith("eta:"))
    for field in ("iter: 0/4", "total_loss:", "loss_cls:", "time:", "data_time:", "lr:", "max_mem"):
        assert field in line


def test_yaml_switches_a_default_hook_off_and_changes_another(tiny_config):
    config = tiny_config(
        "train.hooks=[{name: TensorBoardWriter, enabled: false},"
        " {name: BestCheckpointer, metric: bbox/AP50}]"
    )
    trainer = build_trainer(config)
    assert "TensorBoardWriter" not in names(trainer)
    best = [hook for hook in trainer.hooks if isinstance(hook, hooks.BestCheckpointer)]
    assert [hook.metric for hook in best] == ["bbox/AP50"]


def test_a_changed_hook_keeps_the_period_of_its_section(tiny_config):
    blocks = "[{name: Evaluation}, {name: MetricSummary, period: 7}, {name: PeriodicCheckpointer}]"
    config = tiny_config(f"train.hooks={blocks}", "test.eval_period=3", "train.checkpoint_period=5")
    periods = {type(hook).__name__: hook.period for hook in build_trainer(config).hooks
               if hasattr(hook, "period")}  # fmt: skip
    assert periods == {
        "Evaluation": 3, "MetricSummary": 7, "PeriodicCheckpointer": 5, "NonFiniteLossCheck": 1
    }  # fmt: skip


def test_yaml_adds_a_hook_of_the_user(tiny_config):
    class Shout(HookBase):
        """Says a word.

        Args:
            word: The word.
        """

        def __init__(self, *, word: str = "hello") -> None:
            self.word = word

    HOOK_REGISTRY.register(Shout)
    trainer = build_trainer(tiny_config("train.hooks=[{name: Shout, word: hey}]"))
    shout = next(hook for hook in trainer.hooks if isinstance(hook, Shout))
    assert shout.word == "hey"
    assert names(trainer).index("Shout") < names(trainer).index("MetricSummary")


def test_without_a_test_set_nothing_is_evaluated(tiny_config):
    trainer = build_trainer(tiny_config("data.test=[]", "train.hooks=[]"))
    assert not {"Evaluation", "BestCheckpointer"} & set(names(trainer))
    assert trainer.train() == {}


def test_two_test_sets_of_one_name_are_refused(tiny_config):
    block = "{name: Shapes, num_images: 2, seed: 9}"
    with pytest.raises(
        ConfigError, match=r"2 data sets are called 'shapes_9'.*give each a `title`"
    ):
        build_trainer(tiny_config(f"data.test=[{block}, {block}]"))


def test_two_test_sets_are_told_apart_by_their_names(train, tmp_path):
    blocks = ", ".join(f"{{name: Shapes, num_images: 2, seed: {seed}}}" for seed in (8, 9))
    results = train(f"data.test=[{blocks}]").results
    assert list(results) == ["shapes_8", "shapes_9"]
    assert (tmp_path / "run/inference/shapes_8/results.json").is_file()


def test_an_unknown_metric_is_told_with_the_known_ones(train):
    with pytest.raises(ConfigError, match=r"no metric 'bbox/APP'; did you mean 'bbox/AP.*Set it"):
        train("train.hooks=[{name: BestCheckpointer, metric: bbox/APP}]")


class _Values:
    def __init__(self, *values):
        self.values = iter(values)

    def __call__(self, model):
        return {"set": {"bbox": {"AP": next(self.values)}}}


@pytest.mark.parametrize(
    ("mode", "values", "best", "at"),
    [
        ("max", (10.0, 30.0, 20.0, 30.0), 30.0, 1),
        ("min", (10.0, 30.0, 5.0, 5.0), 5.0, 2),
        ("max", (math.nan, 1.0, math.nan, 0.5), 1.0, 1),
    ],
)
def test_the_best_checkpoint_is_that_of_the_best_value(tiny_config, mode, values, best, at):
    config = tiny_config(
        f"train.hooks=[{{name: BestCheckpointer, mode: {mode}}}]", "test.eval_period=1"
    )
    trainer = build_trainer(config)
    evaluation = next(h for h in trainer.hooks if isinstance(h, hooks.Evaluation))
    evaluation.evaluate = _Values(*values)
    trainer.train()
    hook = next(h for h in trainer.hooks if isinstance(h, hooks.BestCheckpointer))
    assert (hook.best, hook.best_iter) == (best, at)


def test_a_non_finite_loss_stops_the_run_and_names_its_images(tiny_config):
    trainer = build_trainer(tiny_config("solver.optimizer.lr=1e30", "solver.clip_gradients={}"))
    trainer.clip_gradients.norm = None
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    message = str(caught.value)
    files = [sample["file_name"] for sample in trainer.batch]
    assert "at iteration" in message
    assert all(name in message for name in files)
    assert "lower solver.optimizer.lr" in message


def test_metrics_wait_for_the_device_only_when_they_are_taken():
    buffer = MetricBuffer()
    buffer.put({"a": torch.tensor(1.0), "b": 2})
    buffer.put({"a": torch.tensor(3.0)})
    assert buffer.take() == {"a": 2.0, "b": 2.0}
    assert buffer.take() == {}


def test_the_plain_weights_are_evaluated_beside_the_average(train, tmp_path):
    plain = train("solver.optimizer.lr=0.02", output="plain").results["shapes_9"]["bbox"]
    trainer = train(
        "solver.optimizer.lr=0.02",
        "train.ema={decay: 0.99}",
        "train.hooks=[{name: Evaluation, without_average: true}]",
    )
    tasks = trainer.results["shapes_9"]
    assert tasks["bbox_plain"] == pytest.approx(plain, nan_ok=True)
    found = {}
    for folder in ("inference", "inference_plain"):
        text = (tmp_path / "run" / folder / "shapes_9/results.json").read_text()
        found[folder] = json.loads(text)["bbox"]["AP"]
    assert found["inference"] == pytest.approx(tasks["bbox"]["AP"])
    assert found["inference_plain"] == pytest.approx(tasks["bbox_plain"]["AP"])
    assert '"bbox_plain/AP"' in (tmp_path / "run/metrics.json").read_text()
    files = [trainer_weights(tmp_path, name) for name in ("model_final", "model_final_plain")]
    assert torch.equal(files[0]["head.cls_score.bias"], trainer.ema.weights["head.cls_score.bias"])
    weights = trainer.model.state_dict()
    assert all(torch.equal(value, files[1][name]) for name, value in weights.items())


def trainer_weights(tmp_path, name):
    return load_checkpoint(tmp_path / f"run/{name}.pth")["model"]


def test_an_evaluation_leaves_random_numbers_and_modes_as_they_were(small_trainer):
    def evaluate(model, folder="inference"):
        torch.rand(3)
        random.random()
        model.eval()
        return {"set": {"bbox": {"AP": 1.0}}}

    numbers = []
    for period in (0, 1):
        torch.manual_seed(5)
        random.seed(5)
        trainer = small_trainer(hooks.Evaluation(evaluate=evaluate, period=period))
        trainer.train()
        assert trainer.model.training
        numbers.append((torch.rand(1).item(), random.random()))
    assert numbers[0] == numbers[1]


def test_pictures_are_drawn_with_every_evaluation_or_by_their_own_period(tiny_config):
    drawn = {}
    for period in ("null", 3):
        config = tiny_config(
            f"train.hooks=[{{name: PredictionPictures, num_images: 1, period: {period}}}]",
            "test.eval_period=2",
        )
        trainer = build_trainer(config)
        seen = drawn[period] = []

        class Look(HookBase):
            def after_step(self, trainer, seen=seen):
                seen.append(len(trainer.pictures))

        trainer.hooks.insert(names(trainer).index("MetricSummary"), Look())
        trainer.train()
        assert all(module.training for module in [trainer.model])
    assert drawn == {"null": [0, 1, 0, 1], 3: [0, 0, 1, 1]}
