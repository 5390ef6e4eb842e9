"""Losses of images against torch's own, and timm's binary cross-entropy worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from detlite.modeling.losses import BinaryCrossEntropyLoss, CrossEntropyLoss


def draw(n=6, k=5):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, k, generator=generator)
    classes = torch.randint(k, (n,), generator=generator)
    return logits.requires_grad_(), classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_of_class_indices(smoothing):
    logits, classes = draw()
    found = CrossEntropyLoss(label_smoothing=smoothing)(logits, F.one_hot(classes, 5).float())
    expected = F.cross_entropy(logits, classes, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_mixture_costs_the_mixture_of_its_losses():
    logits, classes = draw()
    ones, loss = F.one_hot(classes, 5).float(), CrossEntropyLoss()
    mixed = 0.3 * ones + 0.7 * ones.roll(1, 0)
    expected = 0.3 * loss(logits, ones) + 0.7 * loss(logits, ones.roll(1, 0))
    torch.testing.assert_close(loss(logits, mixed), expected)


def test_binary_cross_entropy_by_hand():
    # Targets 0.9 + 0.1 / 2 and 0.1 / 2; logits 0 have a probability of 1/2 each.
    loss = BinaryCrossEntropyLoss(label_smoothing=0.1)
    found = loss(torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), torch.tensor([[1.0, 0], [1, 0]]))
    second = (-0.95 * math.log(0.75) - 0.05 * math.log(0.25) + math.log(2)) / 2
    torch.testing.assert_close(found, torch.tensor([math.log(2), second]))


def test_a_threshold_makes_all_classes_of_a_mixture_true():
    logits, _ = draw(1, 3)
    mixed = torch.tensor([[0.6, 0.3, 0.1]])
    found = BinaryCrossEntropyLoss(target_threshold=0.2)(logits, mixed)
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(found, expected[None])
    torch.testing.assert_close(
        BinaryCrossEntropyLoss().probabilities(logits), torch.sigmoid(logits)
    )
