"""A resumed run does what the present config says, lists it, or refuses it."""

import importlib.util
import logging
import pathlib
import shutil

import pytest
import torch

from detlite import CheckpointError, build_trainer, load_config
from detlite.checkpoint import load_checkpoint, save_atomically
from detlite.engine.hooks import BestCheckpointer, EarlyStopping
from detlite.engine.resume_changes import RULES, ResumeChanges

ROOT = pathlib.Path(__file__).parents[2]
# Two levels of a shallow backbone, which is enough for a run.
SMALL = [
    "model.backbone={out_features: [res2, res3]}",
    "model.anchor_generator.base_size=4",
    "solver.optimizer.fused=false",
    "data.test=[]",
    "train.hooks=[{name: TensorBoardWriter, enabled: false}]",
]


@pytest.fixture(scope="module")
def half_run(tmp_path_factory, tiny_values):
    """A run that has done two iterations of two, at rates of AdamW with a cosine."""
    folder = tmp_path_factory.mktemp("half") / "run"
    file, tiny = tiny_values
    config = load_config(file, [*tiny, *SMALL, "solver.max_iter=2", f"output_dir={folder}"])
    build_trainer(config).train()
    return folder


@pytest.fixture
def resume(half_run, tmp_path, tiny_values, caplog):
    """Go on with a copy of it; returns the trainer, which has not begun."""
    file, tiny = tiny_values
    shutil.copytree(half_run, tmp_path / "run")

    def go_on(*overrides):
        caplog.set_level(logging.INFO, "detlite")
        overrides = ("solver.max_iter=2", f"output_dir={tmp_path / 'run'}", *overrides)
        return build_trainer(load_config(file, [*tiny, *SMALL, *overrides]), resume=True)

    return go_on


def change_checkpoint(folder, **values):
    path = folder / (folder / "last_checkpoint").read_text()
    content = {**load_checkpoint(path), **values}
    save_atomically({k: v for k, v in content.items() if v is not None}, path, checksum=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_longer_run_follows_the_longer_cosine(resume, caplog):
    trainer = resume("solver.max_iter=10", "solver.schedule.warmup_iters=0")
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(0.002 * 0.5 * (1 + torch.tensor(0.2 * torch.pi).cos().item()))
    assert "solver.max_iter: 2 -> 10" in caplog.text
    assert "solver.schedule.warmup_iters: 2 -> 0" in caplog.text
    trainer.max_iter = 3
    trainer.train()
    assert 0 < trainer.optimizer.param_groups[0]["lr"] < rate


def test_changed_keys_of_the_optimizer_are_applied_and_listed(resume, caplog):
    trainer = resume(
        "solver.optimizer={lr: 0.1, weight_decay: 0.3, betas: [0.8, 0.9]}", "solver.max_iter=20"
    )
    group = next(g for g in trainer.optimizer.param_groups if g["name"] == "weights")
    assert group["lr"] == pytest.approx(0.1, rel=0.05)
    assert (group["weight_decay"], list(group["betas"])) == (0.3, [0.8, 0.9])
    assert trainer.optimizer.state
    for line in ("optimizer.lr: 0.002 -> 0.1", "optimizer.weight_decay: 0.0001 -> 0.3"):
        assert line in caplog.text


def test_an_unchanged_config_lists_nothing_and_keeps_the_state_to_the_bit(resume, caplog, half_run):
    trainer = resume()
    assert caplog.text.count(" -> ") == 1  # the copied folder
    saved = load_checkpoint(half_run / "model_0000001.pth")
    assert trainer.optimizer.state_dict()["param_groups"] == saved["optimizer"]["param_groups"]
    hooks = dict(trainer.named_hooks())
    assert hooks["LRScheduler.1"].state_dict() == saved["hooks"]["LRScheduler.1"]


def test_going_back_after_a_change_lowers_the_new_rate(resume):
    trainer = resume("solver.optimizer.lr=0.1", "solver.max_iter=20")
    rates = []

    def go_back_once(trainer):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        if len(rates) == 1:
            trainer.go_back(0.5)

    trainer.hooks[0].after_backward = go_back_once
    trainer.hooks[0].after_step = lambda trainer: trainer.request_stop("signal")
    trainer.train()
    assert rates == [pytest.approx(0.1, rel=0.05), pytest.approx(rates[0] / 2)]
    assert (trainer.iter, trainer.lr_factor) == (2, 0.5)
    # The factor is in the checkpoint of this run too, whatever rate comes next.
    again = resume("solver.optimizer.lr=0.2", "solver.max_iter=20")
    assert again.optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("solver.optimizer={name: SGD, lr: 0.1, momentum: 0.9}", "AdamW -> SGD"),
        ("solver.optimizer.amsgrad=true", "solver.optimizer.amsgrad: false -> true"),
        ("model.head.num_convs=2", "model.head.num_convs: 1 -> 2"),
        ("model.neck={name: PAFPN, out_channels: 16}", "model.neck.name: FPN -> PAFPN"),
        ("model.anchor_generator.aspect_ratios=[2.0]", "aspect_ratios: [1.0] -> [2.0]"),
        ("model.preprocessor=null", "model.preprocessor: {name: ImageNormalizer"),
    ],
)
def test_what_cannot_be_applied_is_refused_with_the_remedy(resume, tmp_path, override, named):
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        resume(override)
    assert named in str(caught.value)
    assert "output_dir=ANOTHER --weights" in str(caught.value)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("swapped", [True, False])
def test_other_classes_are_refused(resume, tmp_path, swapped):
    names = ["triangle", "circle", "cross"] if swapped else ["circle", "triangle", "ring"]
    change_checkpoint(tmp_path / "run", class_names=names)
    with pytest.raises(CheckpointError, match=r"classes: \[.*\] -> \[.*\]") as caught:
        resume()
    assert f"classes: [{', '.join(names)}] -> [circle, triangle, cross]" in str(caught.value)
    assert "rows are mapped by name" in str(caught.value)


def test_parameters_that_are_frozen_or_weigh_otherwise_are_applied(resume, caplog):
    trainer = resume("solver.weight_decay_norm=null", "solver.freeze=[backbone.*]")
    assert {g["name"] for g in trainer.optimizer.param_groups} == {"weights and norms", "biases"}
    assert "solver.freeze: [] -> [backbone.*]" in caplog.text
    assert "solver.weight_decay_norm: 0.0 -> null" in caplog.text


def test_keys_that_only_begin_a_run_are_listed_as_without_effect(resume, caplog):
    resume("model.weights=other.pth", "model.head.prior_prob=0.02", "seed=3")
    applied, _, without = caplog.text.partition("without effect:")
    assert "seed: 0 -> 3" in applied
    assert "model.weights: '' -> other.pth" in without
    assert "model.head.prior_prob: 0.01 -> 0.02" in without


def test_another_seed_draws_other_numbers(resume):
    same, other = (resume(*overrides).state_dict() for overrides in ((), ("seed=3",)))
    trainers = [resume(), resume("seed=3")]
    assert trainers[0]._rng_to_restore is not None
    assert trainers[1]._rng_to_restore is None
    assert same["iteration"] == other["iteration"]


@pytest.mark.parametrize("config", [None, "a: [", "solver: {old_key: 3}"])
def test_a_checkpoint_of_an_older_version_still_resumes(resume, tmp_path, config):
    change_checkpoint(tmp_path / "run", config=config, class_names=None)
    assert resume().start_iter == 2


def test_auto_keeps_the_precision_of_the_checkpoint(tiny_config):
    before, after = tiny_config(), tiny_config()
    after.train.precision = "auto"
    checkpoint = {"config": before.to_yaml()}
    assert ResumeChanges.between(checkpoint, after, [], None).changes == ()
    after.train.precision = "bf16"
    (change,) = ResumeChanges.between(checkpoint, after, [], None).changes
    assert str(change) == "train.precision: fp32 -> bf16"


def test_entries_of_lists_are_compared_by_name(tiny_config):
    before = tiny_config("train.hooks=[{name: EarlyStopping, patience: 3}]")
    after = tiny_config("train.hooks=[{name: ValidationLoss}, {name: EarlyStopping, patience: 4}]")
    changes = ResumeChanges.between({"config": before.to_yaml()}, after, [], None).changes
    assert [str(change) for change in changes] == [
        "train.hooks: [EarlyStopping] -> [ValidationLoss, EarlyStopping]",
        "train.hooks.1.patience: 3 -> 4",
    ]


def test_another_config_altogether_is_listed_in_few_lines(tiny_config, caplog):
    caplog.set_level(logging.INFO, "detlite")
    coco = load_config(ROOT / "configs/retinanet/retinanet_r50_fpn_1x_coco.yaml")
    ResumeChanges.between({"config": coco.to_yaml()}, tiny_config(), [], None).log()
    assert len(caplog.text.splitlines()) < 40
    assert max(map(len, caplog.text.splitlines())) < 280
    assert "keys: " in caplog.text.splitlines()[-1]


def test_best_values_of_another_metric_or_other_test_data_are_forgotten(tiny_config):
    for hook in (BestCheckpointer, EarlyStopping):
        computed = {"checkpointer": None} if hook is BestCheckpointer else {}
        first, same, other = (
            hook(metric=metric, mode=mode, **computed)
            for metric, mode in (("bbox/AP", "max"), ("bbox/AP", "max"), ("val/total_loss", "min"))
        )
        first.best, first.best_iter = 50.0, 3
        same.load_state_dict(first.state_dict())
        other.load_state_dict(first.state_dict())
        assert (same.best, other.best) == (50.0, None)
        changes = ResumeChanges.between(
            {"config": tiny_config().to_yaml()}, tiny_config("data.test.0.seed=5"), [], None
        )
        assert changes.touches(hook.state_depends_on)


def test_a_scaler_begins_anew_in_a_run_that_had_none(small_trainer):
    state = small_trainer().state_dict()
    scaled = small_trainer(precision="fp16")
    scale = scaled.scaler.get_scale()
    scaled.load_state_dict(state)
    assert scaled.scaler.get_scale() == scale


def test_the_rules_are_documented():
    page = (ROOT / "docs" / "training.md").read_text()
    section = page.partition("## Resuming with another config")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")]
    for rule in RULES:
        key = rule.pattern.removesuffix("*").removesuffix(".") or "anything else"
        fates = [fate.strip() for keys, fate in rows if f"`{key}`" in keys or keys.strip() == key]
        assert fates == [rule.fate], rule


def load_soak():
    path = ROOT / "tests" / "soak" / "resume_changes.py"
    spec = importlib.util.spec_from_file_location("resume_changes_soak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("count", "runs"),
    [(3, ["adamw"]), pytest.param(200, None, marks=pytest.mark.slow)],
)
def test_one_changed_key_does_what_is_documented(tmp_path, monkeypatch, count, runs):
    monkeypatch.setenv("DETLITE_DATASETS", "")
    verdicts = load_soak().soak(tmp_path, count, seed=0, runs=runs)
    assert sum(verdicts.counts.values()) == count
    assert verdicts.wrong == []
