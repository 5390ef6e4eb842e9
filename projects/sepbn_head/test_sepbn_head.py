import json
import math
from pathlib import Path

import pytest
import torch

from detlite import HEAD_REGISTRY, ConfigError, ShapeSpec, build_trainer, load_config

HERE = Path(__file__).parent
SHAPES = HERE / "retinanet_r18_fpn_sepbn_shapes.yaml"
LEVELS = {"p3": ShapeSpec(16, 8), "p4": ShapeSpec(16, 16), "p5": ShapeSpec(16, 32)}
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


def build_head(name="SepBNHead", input_shape=LEVELS, **keys):
    torch.manual_seed(0)
    keys = {"num_convs": 2, **keys}
    return HEAD_REGISTRY.build(
        {"name": name, **keys}, input_shape=input_shape, num_anchors=3, num_classes=5
    )


def unlike_levels():
    """Levels (8, 16, H, W) of very different mean and spread."""
    generator = torch.Generator().manual_seed(1)
    sizes, spreads, means = (16, 8, 4), (0.1, 1.0, 10.0), (-1.0, 0.0, 5.0)
    return [
        spread * torch.randn(8, 16, size, size, generator=generator) + mean
        for size, spread, mean in zip(sizes, spreads, means, strict=True)
    ]


def copy_weights(head, retina_head):
    """Give RetinaNet's head the convolutions, and the first level's normalizations, of ours."""
    for ours, theirs in (
        (head.cls_subnet, retina_head.cls_subnet),
        (head.box_subnet, retina_head.box_subnet),
    ):
        for conv, norm, target in zip(ours.convs, ours.norms[0], theirs, strict=True):
            target.weight.data.copy_(conv.weight)
            target.norm.load_state_dict(norm.state_dict())
    retina_head.cls_score.load_state_dict(head.cls_score.state_dict())
    retina_head.box_pred.load_state_dict(head.box_pred.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_with_equal_normalizations_it_is_retinanets_head(training):
    head, retina_head = build_head(), build_head("RetinaNetHead", norm="BN")
    copy_weights(head, retina_head)
    head.train(training)
    retina_head.train(training)
    features = unlike_levels()
    for ours, theirs in zip(head(features), retina_head(features), strict=True):
        torch.testing.assert_close(ours, theirs)


def shift_in_evaluation(head):
    """Mean difference of the logits between training and evaluation mode, on the same levels."""
    features = unlike_levels()
    with torch.no_grad():
        for _ in range(100):
            trained, _ = head(features)
        evaluated, _ = head.eval()(features)
    return ((evaluated - trained).abs().mean() / trained.std()).item()


def test_statistics_of_each_level_fit_it_in_evaluation_which_shared_ones_do_not():
    assert shift_in_evaluation(build_head()) < 0.02
    assert shift_in_evaluation(build_head("RetinaNetHead", norm="BN")) > 0.5


def test_only_normalizations_multiply_with_the_levels():
    one = build_head(input_shape={"p3": LEVELS["p3"]})
    three = build_head()
    count = [sum(p.numel() for p in head.parameters()) for head in (one, three)]
    # 2 more levels, 2 networks of 2 normalizations, weight and bias of 16 channels.
    assert count[1] - count[0] == 2 * 2 * 2 * 2 * 16


def test_separable_convolutions_have_the_weights_that_the_paper_counts():
    head = build_head(separable=True)
    convs = [p for name, p in head.named_parameters() if "convs" in name]
    assert sum(p.numel() for p in convs) == 4 * (16 * 9 + 16 * 16)


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("num_convs", [0, 1, 4])
def test_there_is_a_prediction_for_each_anchor(num_convs, separable):
    head = build_head(num_convs=num_convs, separable=separable)
    logits, deltas = head(unlike_levels())
    num_anchors = 3 * (16 * 16 + 8 * 8 + 4 * 4)
    assert logits.shape == (8, num_anchors, 5)
    assert deltas.shape == (8, num_anchors, 4)


@pytest.mark.parametrize("separable", [True, False])
def test_it_begins_with_the_prior_score_and_passes_spread_on(separable):
    head = build_head(separable=separable, prior_prob=0.02)
    logits, _ = head(unlike_levels())
    assert logits.sigmoid().mean().item() == pytest.approx(0.02, rel=0.1)
    # The normalizations see a variance far above their eps, also behind two convolutions.
    for norms in head.cls_subnet.norms:
        assert all(norm.running_var.min() > 1e-4 for norm in norms)


def test_levels_of_different_width_are_refused():
    with pytest.raises(ValueError, match="same number of channels"):
        build_head(input_shape={**LEVELS, "p5": ShapeSpec(32, 32)})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.head.norm=GN", "one of BN, SyncBN"),
        ("model.head.prior_prob=1.0", "> 0 and < 1"),
        ("model.head.num_classes=3", "the classes of `data.train`"),
        ("model.head.num_conv=3", "did you mean 'num_convs'"),
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
