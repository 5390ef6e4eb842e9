"""ATSS and the generalized focal losses say what mmdetection's code did: mmdet_numbers/make.py."""

import json
from pathlib import Path

import pytest
import torch

from detlite.modeling import ATSSMatcher
from detlite.modeling.losses import DistributionFocalLoss, QualityFocalLoss, VarifocalLoss

from .mmdet_numbers.make import make_anchors

NUMBERS = json.loads((Path(__file__).parent / "mmdet_numbers/numbers.json").read_text())
LOSSES = NUMBERS["losses"]


def tensor(name):
    return torch.tensor(LOSSES[name], dtype=None if name == "classes" else torch.float64)


@pytest.mark.parametrize("case", NUMBERS["atss"], ids=lambda case: f"{len(case['boxes'])} boxes")
def test_atss_matches_the_same_anchors(case):
    levels = make_anchors(case["scale"])
    boxes = torch.tensor(case["boxes"])
    matcher = ATSSMatcher(top_k=case["top_k"])
    indices, labels = matcher([boxes[:0], boxes], torch.cat(levels), [len(x) for x in levels])
    foreground = labels[1].nonzero()[:, 0]
    found = torch.stack([foreground, indices[1, foreground]], dim=1).tolist()
    assert found == case["matches"]
    assert not labels[0].any()


def by_row(loss):
    """The loss of each anchor alone."""
    rows = zip(*(tensor(name).split(1) for name in ("logits", "classes", "qualities")), strict=True)
    return torch.stack([loss(*row) for row in rows])


@pytest.mark.parametrize("beta", LOSSES["quality_focal"])
def test_quality_focal_loss_is_the_same(beta):
    expected = torch.tensor(LOSSES["quality_focal"][beta], dtype=torch.float64)
    loss = QualityFocalLoss(beta=float(beta))
    torch.testing.assert_close(by_row(loss), expected, rtol=1e-12, atol=0)
    together = loss(tensor("logits"), tensor("classes"), tensor("qualities"))
    torch.testing.assert_close(together, expected.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("parameters", LOSSES["varifocal"])
def test_varifocal_loss_is_the_same(parameters):
    alpha, gamma = map(float, parameters.split())
    expected = torch.tensor(LOSSES["varifocal"][parameters], dtype=torch.float64)
    found = by_row(VarifocalLoss(alpha=alpha, gamma=gamma))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_distribution_focal_loss_is_the_same():
    expected = torch.tensor(LOSSES["distribution_focal"], dtype=torch.float64)
    found = DistributionFocalLoss()(tensor("bins").view(3, 68), tensor("distances").view(3, 4))
    torch.testing.assert_close(found, expected.view(3, 4).mean(dim=1), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "loss", [QualityFocalLoss(), VarifocalLoss()], ids=lambda x: type(x).__name__
)
def test_ignored_anchors_cost_nothing_and_teach_nothing(loss):
    logits = tensor("logits").requires_grad_()
    classes = tensor("classes")
    classes[::2] = -1
    loss(logits, classes, tensor("qualities")).backward()
    assert not logits.grad[::2].any()
    assert logits.grad[1::2].all()
