"""Losses on the test data: the right number, and nothing moved by it."""

import pytest
import torch

from detlite import build_trainer
from detlite.engine import build_test_loaders
from detlite.engine.hooks import ValidationLoss
from detlite.structures import BatchShare
from detlite.utils.random_state import RandomState

MEASURE = "train.hooks=[{name: ValidationLoss}]"
NORMALIZERS = ["MovingAverageNormalizer", "BatchNormalizer", "PerImageNormalizer"]


def shapes(num_images, seed=9):
    block = f"{{name: Shapes, num_images: {num_images}, seed: {seed}, image_size: [64, 64]}}"
    return f"data.test=[{block}]"


def measured(trainer):
    """What the hook finds after the first step."""
    trainer.iter, trainer.max_iter = 0, 1
    hook = next(h for h in trainer.hooks if isinstance(h, ValidationLoss))
    hook.after_step(trainer)
    (result,) = trainer.results.values()
    return result["val"]


def after_one_step(config):
    trainer = build_trainer(config)
    trainer.max_iter = 10
    trainer.hooks = [h for h in trainer.hooks if isinstance(h, ValidationLoss)]
    trainer._batches = iter(trainer.loader)
    trainer.model.train()
    trainer.run_step()
    return trainer


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_it_is_the_mean_of_the_training_losses_of_whole_batches(tiny_config, normalizer):
    # Six images in batches of two, computed by the loss code as one batch each.
    config = tiny_config(
        MEASURE, shapes(6), f"model.loss_normalizer={{name: {normalizer}}}", "test.batch_size=3"
    )
    trainer = after_one_step(config)
    found = measured(trainer)
    samples = [sample for batch in build_test_loaders(config)[0] for sample in batch]
    model = trainer.model.eval()
    model.training = True
    expected = {"loss_cls": 0.0, "loss_box": 0.0}
    with torch.no_grad():
        for i in range(0, 6, 2):
            losses = model(samples[i : i + 2])
            for name in expected:
                expected[name] += losses[name].item() / 3
    assert found == pytest.approx({**expected, "total_loss": sum(expected.values())}, rel=1e-5)


def test_a_last_batch_that_is_not_full_counts_by_its_images(tiny_config):
    config = tiny_config(MEASURE, shapes(5), "model.loss_normalizer={name: PerImageNormalizer}")
    trainer = after_one_step(config)
    found = measured(trainer)
    model = trainer.model.eval()
    model.training = True
    with torch.no_grad():
        each = [model([sample]) for batch in build_test_loaders(config)[0] for sample in batch]
    # Each image is divided by its own positives, so the batches play no part.
    assert found["loss_box"] == pytest.approx(sum(e["loss_box"].item() for e in each) / 5, rel=1e-5)
    assert len(each) == 5


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_nothing_is_moved(tiny_config, normalizer):
    config = tiny_config(
        MEASURE,
        f"model.loss_normalizer={{name: {normalizer}}}",
        "train.ema={decay: 0.5}",
        "data.num_workers=1",
    )
    trainer = after_one_step(config)
    trainer.ema.weights = {k: v + 1 if v.is_floating_point() else v
                           for k, v in trainer.ema.weights.items()}  # fmt: skip
    states = [
        {name: value.clone() for name, value in state.items()}
        for state in (trainer.model.state_dict(), trainer.ema.weights)
    ]
    modes = [module.training for module in trainer.model.modules()]
    numbers = RandomState.capture()
    measured(trainer)
    for state, now in zip(states, (trainer.model.state_dict(), trainer.ema.weights), strict=True):
        assert all(torch.equal(value, now[name]) for name, value in state.items())
    assert [module.training for module in trainer.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers.torch)
    assert all(p.grad is None or p.grad.isfinite().all() for p in trainer.model.parameters())


def test_the_averaged_weights_are_measured(tiny_config):
    trainer = after_one_step(tiny_config(MEASURE, "train.ema={decay: 0.5}"))
    with torch.no_grad():
        for name, value in trainer.ema.weights.items():
            if name.startswith("head."):
                value.zero_()
    of_average = measured(trainer)
    trainer.model.load_state_dict(trainer.ema.weights)
    trainer.ema = None
    assert measured(trainer) == of_average


def test_a_run_with_it_trains_as_one_without(train):
    runs = [
        train("train.hooks=[]", "test.eval_period=0", "train.ema={decay: 0.9}"),
        train(
            "train.hooks=[{name: ValidationLoss, period: 1}]",
            "train.ema={decay: 0.9}",
            output="measured",
        ),
    ]
    for name, value in runs[0].model.state_dict().items():
        assert torch.equal(value, runs[1].model.state_dict()[name]), name


def test_its_metrics_stand_beside_those_of_the_evaluation(train, tmp_path):
    trainer = train(
        "train.hooks=[{name: ValidationLoss}, {name: BestCheckpointer, metric: val/total_loss,"
        " mode: min}, {name: EarlyStopping, metric: val/loss_cls, mode: min, patience: 9}]",
        "test.eval_period=2",
    )
    (tasks,) = trainer.results.values()
    assert {"bbox", "val"} <= tasks.keys()
    assert next(iter(tasks["val"])) == "total_loss"
    text = (tmp_path / "run/metrics.json").read_text()
    assert text.count('"val/total_loss"') == 2
    assert text.count('"bbox/AP"') == 2
    assert (tmp_path / "run/model_best.pth").is_file()


def test_a_period_of_its_own_is_kept(train, tmp_path):
    train("train.hooks=[{name: ValidationLoss, period: 1}]", "train.log_period=9")
    text = (tmp_path / "run/metrics.json").read_text()
    assert text.count('"val/total_loss"') == 4
    assert text.count('"bbox/AP"') == 1


def test_a_model_that_knows_no_shares_is_measured_image_by_image(tiny_config):
    trainer = after_one_step(tiny_config(MEASURE))
    inner = trainer.model

    class Whole(torch.nn.Module):
        """A model of a project, which is only trained whole."""

        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, batch):
            self.inner.training = self.training
            return self.inner(batch)

    trainer.model = Whole()
    found = measured(trainer)
    samples = [s for b in build_test_loaders(tiny_config(MEASURE))[0] for s in b]
    inner.eval().training = True
    with torch.no_grad():
        each = [inner([sample])["loss_cls"].item() for sample in samples]
    assert found["loss_cls"] == pytest.approx(sum(each) / len(each), rel=1e-5)


def test_shares_of_ones_give_the_sums(tiny_config):
    # What the hook rests on: with weights of one a share's losses are plain sums.
    trainer = after_one_step(tiny_config(MEASURE))
    sample = trainer.batch[0]
    canvas = tuple(sample["image"].shape[-2:])
    with torch.no_grad():
        one = trainer.model([sample], BatchShare(canvas, torch.ones(1)))
        two = trainer.model([sample], BatchShare(canvas, torch.full((1,), 2.0)))
    assert two["loss_cls"].item() == pytest.approx(2 * one["loss_cls"].item())
