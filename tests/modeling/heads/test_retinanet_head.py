import pytest
import torch
from torch import nn

from detlite.modeling.heads import RetinaNetHead
from detlite.structures import ShapeSpec

LEVELS = {"p3": ShapeSpec(32, 8), "p4": ShapeSpec(32, 16)}


def make_head(**arguments):
    defaults = {"input_shape": LEVELS, "num_anchors": 3, "num_classes": 5}
    return RetinaNetHead(**{**defaults, **arguments})


def draw_levels():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 32, *size, generator=generator) for size in ((4, 6), (2, 3))]


@pytest.mark.parametrize("num_convs", [0, 1, 4])
@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_every_anchor_has_its_logits_and_deltas(num_convs, norm):
    head = make_head(num_convs=num_convs, norm=norm)
    logits, deltas = head(draw_levels())
    assert logits.shape == (2, (4 * 6 + 2 * 3) * 3, 5)
    assert deltas.shape == (2, (4 * 6 + 2 * 3) * 3, 4)
    convs = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 2 * num_convs + 2


@pytest.mark.parametrize("prior_prob", [0.01, 0.3])
def test_every_score_begins_near_the_prior(prior_prob):
    head = make_head(prior_prob=prior_prob)
    scores = head(draw_levels())[0].sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, prior_prob), rtol=0.02, atol=0)
    nn.init.zeros_(head.cls_score.weight)
    scores = head(draw_levels())[0].sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, prior_prob))


def test_convolutions_begin_small_and_without_biases():
    head = make_head(norm="")
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.05)
            assert module is head.cls_score or not module.bias.any()


def test_channels_are_numbered_anchor_by_anchor_and_cells_row_by_row():
    head = make_head(num_convs=0, num_anchors=2, num_classes=3)
    for conv in (head.cls_score, head.box_pred):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, 0)
        with torch.no_grad():
            conv.bias.copy_(torch.arange(len(conv.bias)))
            # The first input channel is passed through, times 100.
            conv.weight[:, 0, 1, 1] = 100
    x = torch.zeros(1, 32, 2, 2)
    x[0, 0] = torch.tensor([[1, 2], [3, 4]])
    logits, deltas = head([x])
    rows = [(cell, anchor) for cell in (1, 2, 3, 4) for anchor in (0, 1)]
    expected = [[cell * 100 + 3 * anchor + k for k in range(3)] for cell, anchor in rows]
    assert logits[0].tolist() == expected
    expected = [[cell * 100 + 4 * anchor + k for k in range(4)] for cell, anchor in rows]
    assert deltas[0].tolist() == expected


def test_levels_share_the_weights_and_keep_their_order():
    head = make_head().eval()
    fine, coarse = draw_levels()
    logits, deltas = head([fine, coarse])
    for level, rows in ((fine, slice(0, 72)), (coarse, slice(72, 90))):
        torch.testing.assert_close(head([level])[0], logits[:, rows])
        torch.testing.assert_close(head([level])[1], deltas[:, rows])


def test_the_two_networks_share_nothing():
    head = make_head()
    logits, _ = head(draw_levels())
    logits.sum().backward()
    with_gradient = {
        name.split(".")[0] for name, p in head.named_parameters() if p.grad is not None
    }
    assert with_gradient == {"cls_subnet", "cls_score"}


@pytest.mark.parametrize(("norm", "has_bias"), [("", True), ("GN", False)])
def test_a_norm_takes_the_place_of_the_bias(norm, has_bias):
    head = make_head(norm=norm)
    for subnet in (head.cls_subnet, head.box_subnet):
        assert all((conv.bias is not None) == has_bias for conv in subnet)
    assert head.cls_score.bias is not None
    assert head.box_pred.bias is not None


def test_levels_of_different_widths_are_refused():
    levels = {"p3": ShapeSpec(32, 8), "p4": ShapeSpec(16, 16)}
    with pytest.raises(ValueError, match=r"same number of channels, got .*channels=16"):
        make_head(input_shape=levels)
