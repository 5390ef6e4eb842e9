import json
import math
from pathlib import Path

import pytest
import torch
import torchvision

from detlite import LOSS_REGISTRY, ConfigError, build_trainer, load_config

HERE = Path(__file__).parent
SHAPES = HERE / "retinanet_r18_fpn_asl_shapes.yaml"
BRIEF = [
    "device=cpu",
    "solver.max_iter=3",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.train.0.num_images=8",
    "data.test.0.num_images=2",
    "train.log_period=1",
    "train.hooks=[]",
]


@pytest.fixture(autouse=True)
def _registered():
    load_config(SHAPES)


def asymmetric_loss(**keys):
    return LOSS_REGISTRY.build({"name": "AsymmetricLoss", **keys})


def logits_of(*scores):
    return torch.tensor([scores], dtype=torch.float64).logit()


@pytest.mark.parametrize(
    ("score", "is_positive", "keys", "expected"),
    [
        # -log(0.8), nothing fades with gamma_pos 0
        (0.8, True, {}, 0.2231436),
        # -(1 - 0.8)^1 * log(0.8)
        (0.8, True, {"gamma_pos": 1.0}, 0.0446287),
        # p_m = 0.5 - 0.05 = 0.45: -0.45^4 * log(0.55)
        (0.5, False, {}, 0.0245150),
        # p_m = 0.25 - 0.05 = 0.2: -0.2^2 * log(0.8)
        (0.25, False, {"gamma_neg": 2.0}, 0.0089257),
        # without a margin: -0.5^2 * log(0.5)
        (0.5, False, {"gamma_neg": 2.0, "margin": 0.0}, 0.1732868),
        # below the margin: easy, so left alone
        (0.04, False, {}, 0.0),
    ],
)
def test_loss_is_the_papers_worked_by_hand(score, is_positive, keys, expected):
    classes = torch.tensor([0 if is_positive else 1])
    loss = asymmetric_loss(**keys)(logits_of(score), classes)
    assert loss.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_with_equal_gammas_and_no_margin_it_is_torchvisions_focal_loss(gamma):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(50, 7, generator=generator)
    classes = torch.randint(8, (50,), generator=generator)
    targets = torch.nn.functional.one_hot(classes, 8)[:, :7].float()
    expected = torchvision.ops.sigmoid_focal_loss(
        logits, targets, alpha=-1, gamma=gamma, reduction="sum"
    )
    loss = asymmetric_loss(gamma_pos=gamma, gamma_neg=gamma, margin=0.0)(logits, classes)
    torch.testing.assert_close(loss, expected)


def test_background_is_negative_for_all_classes_and_ignored_anchors_count_nothing():
    logits = logits_of(0.3, 0.6).repeat(3, 1)
    loss = asymmetric_loss()
    background = loss(logits[:1], torch.tensor([2]))
    assert background > 0
    assert loss(logits, torch.tensor([-1, 2, -1])) == background
    ignored = loss(logits.requires_grad_(), torch.tensor([-1, -1, -1]))
    ignored.backward()
    assert ignored == 0
    assert not logits.grad.any()


def test_no_anchors_have_no_loss():
    assert asymmetric_loss()(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 0


@pytest.mark.parametrize(
    "keys",
    [{}, {"gamma_pos": 1.0}, {"gamma_neg": 2.0, "margin": 0.2}, {"gamma_neg": 0.5, "margin": 0.0}],
)
def test_gradient_is_the_derivative(keys):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(12, 4, dtype=torch.float64, generator=generator)
    classes = torch.randint(-1, 5, (12,), generator=generator)
    loss = asymmetric_loss(**keys)
    assert torch.autograd.gradcheck(lambda x: loss(x, classes), logits.requires_grad_())


@pytest.mark.parametrize("margin", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_extreme_logits_give_finite_losses_and_gradients(gamma, margin):
    logits = torch.tensor([[-1e4], [-100.0], [-20.0], [0.0], [20.0], [100.0], [1e4]]).repeat(2, 1)
    classes = torch.tensor([0] * 7 + [1] * 7)
    loss = asymmetric_loss(gamma_pos=gamma, gamma_neg=gamma, margin=margin)
    value = loss(logits.requires_grad_(), classes)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.cls_loss.margin=2", ">= 0 and <= 1"),
        ("model.cls_loss.gamma_neg=-1", ">= 0"),
        ("model.cls_loss.gama_neg=2", "did you mean 'gamma_neg'"),
        ("model.box_loss={name: AsymmetricLoss}", "is no BoxLoss"),
    ],
)
def test_a_mistake_in_the_config_is_explained(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(SHAPES, [override])


def test_it_trains_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = build_trainer(load_config(SHAPES, [*BRIEF, "output_dir=run"]))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    lines = [json.loads(line) for line in Path("run/metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    assert [n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n])] == []
