"""A step that was recorded is repeated bit for bit, and nothing else is taken for it."""

import dataclasses
import pathlib

import pytest
import torch

from detlite.config.loader import import_component
from detlite.engine.replay import read_bundle, record_step, replay, write_bundle
from detlite.engine.replay.finding import find
from detlite.engine.replay.step import StepModel
from detlite.errors import CheckpointError, ConfigError

saboteurs = import_component(str(pathlib.Path(__file__).parents[1] / "saboteurs.py"), "the tests")
LAST = 1


class Record(saboteurs.HookBase):
    """Records a step in which nothing is wrong."""

    def __init__(self, folder):
        self.folder = folder

    def after_backward(self, trainer):
        if trainer.iter == LAST:
            identity = saboteurs.check_of(trainer).checkpointer.identity
            self.folder = write_bundle(record_step(trainer, identity, []), self.folder)


@pytest.fixture
def recorded(tiny_config, tmp_path):
    """Train a little and give the bundle of a step, as it is read from its file."""

    def record(*overrides):
        trainer = saboteurs.build(tiny_config, f"solver.max_iter={LAST + 1}", *overrides)
        hook = Record(tmp_path / "steps")
        trainer.hooks.append(hook)
        trainer.train()
        return read_bundle(hook.folder)

    return record


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.precision=bf16", "train.channels_last=false"],
        ["train.precision=fp16"],
        ["data.batch_size=5", "train.accumulate=2"],
        ["model.head.name=DroppingHead"],
        ["solver.freeze=['backbone.convs.0.*']", "train.deterministic=false"],
        ["model.loss_normalizer={name: MovingAverageNormalizer}", "data.train_transforms="
         "[{name: RandomHorizontalFlip}, {name: ResizeShortestEdge, min_size: [48, 64, 80]}]"],
    ],
    ids=["plain", "bf16", "fp16", "parts", "dropout", "frozen", "sizes"],
)  # fmt: skip
def test_a_step_is_repeated_bit_for_bit(recorded, overrides):
    bundle = recorded(*overrides)
    before = torch.get_rng_state()
    result = replay(bundle)
    assert result.same_bits, result.text()
    # Parameters are added up in another order than the optimizer's.
    torch.testing.assert_close(result.repetition.gradient_norm, bundle.gradient_norm)
    assert not result.reproduced
    assert result.finding.kind == "nowhere"
    assert "NOT reproduced" in result.text()
    assert result.watched.part == -1
    if "model.head.name=DroppingHead" in overrides:
        other = dataclasses.replace(bundle, random=type(bundle.random).capture())
        torch.set_rng_state(before)
        assert not replay(other).same_bits


def test_other_weights_give_another_loss(recorded):
    bundle = recorded()
    bundle.weights["head.box_pred.bias"].add_(0.01)
    result = replay(bundle)
    assert not result.same_bits
    assert "Other bits come of another device" in result.text()
    assert [row[1] for row in result._compared() if not row[4]] == ["total_loss", "loss_box"]


def test_the_part_with_the_bad_image_is_told(tiny_config):
    overrides = ["data.batch_size=3", "train.accumulate=3", saboteurs.POISONED % [1]]
    trainer = saboteurs.build(tiny_config, *overrides)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    broken = trainer.batch[1]["file_name"]
    # Of the images only that of the part.
    assert f"Images of this step: {broken}. The step" in str(caught.value)
    result = replay(read_bundle(saboteurs.bundles(trainer)[0]))
    assert result.reproduced
    assert result.watched.part == 1
    assert f"image {broken} (0 of part 1): 1 NaN" in result.finding.title
    finite = [row[4] for row in result._compared() if row[0] != 1]
    assert finite == [True] * 8


def test_a_sum_of_parts_that_overflows_is_told(recorded):
    model = StepModel(recorded("data.batch_size=4", "train.accumulate=4"))
    model.model.head.cls_score.bias.register_hook(lambda gradient: torch.full_like(gradient, 2e38))
    watched = model.watch()
    assert watched.part == 1
    assert watched.in_sum == ["head.cls_score.bias"]


def test_a_norm_that_overflows_though_each_gradient_is_finite_is_told(recorded):
    step = StepModel(recorded())
    step.model.head.box_pred.bias.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    finding = find(step, step.watch(), step.repeat())
    assert (finding.kind, finding.module) == ("norm", "head.box_pred")
    assert "which is inf though each of them is finite" in finding.title
    assert finding.details == ["the largest entry is 1e+30, in the gradient of head.box_pred.bias"]


def test_a_bundle_of_another_rank_says_that_it_is_not_here(recorded):
    bundle = dataclasses.replace(recorded(), world_size=2, rank=1, why=["total_loss"])
    result = replay(bundle)
    assert result.finding.title == "not in the share of rank 1, which is finite"
    assert "of the other ranks" in result.text()
    assert not result.reproduced


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ["backbone.gone"]}, "another model than its config builds"),
        ({"in_eval": ["gone"]}, "another model than its config builds"),
        ({"other_buffers": {"gone": torch.zeros(1)}}, "another model than its config builds"),
        ({"weights": {}}, "is of another architecture"),
        ({"class_names": ["one"]}, "is of another architecture"),
    ],
)
def test_a_bundle_whose_parts_do_not_belong_together_is_refused(recorded, changes, message):
    bundle = dataclasses.replace(recorded(), **changes)
    with pytest.raises(CheckpointError, match=message):
        replay(bundle)


def test_a_config_that_imports_is_run_by_wish_only(recorded, tmp_path):
    file = tmp_path / "project.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    bundle = recorded()
    config = bundle.config.replace("imports: []", f"imports: ['{file}']")
    bundle = dataclasses.replace(bundle, config=config)
    with pytest.raises(ConfigError, match="--trust-imports"):
        replay(bundle)
    assert not (tmp_path / "ran").exists()
    assert replay(bundle, trust_imports=True).same_bits
    assert (tmp_path / "ran").exists()


def test_torch_is_as_it_was_then_and_afterwards_as_it_is_now(recorded):
    threads = torch.get_num_threads() + 1
    step = StepModel(dataclasses.replace(recorded(), threads=threads, deterministic=True))
    with step._as_it_was():
        assert torch.get_num_threads() == threads
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads - 1
    assert not torch.are_deterministic_algorithms_enabled()
    replay(dataclasses.replace(step.bundle, threads=threads - 1, deterministic=False))
    assert not torch.is_anomaly_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to repeat it on")
def test_a_step_of_a_gpu_is_repeated_on_the_cpu_where_there_is_none(recorded):
    bundle = dataclasses.replace(recorded(), device="cuda")
    assert "ran on cuda, repeated on cpu" in replay(bundle).text()
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        replay(bundle, device="cuda")
