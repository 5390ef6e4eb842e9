import pytest
import torch

from detlite.modeling import LOSS_REGISTRY
from detlite.ops import sigmoid_focal_loss
from detlite.registry import Block


@pytest.mark.parametrize(
    ("keys", "alpha", "gamma"), [({}, 0.25, 2.0), ({"alpha": 0.5, "gamma": 1.0}, 0.5, 1.0)]
)
def test_the_loss_is_the_op_with_the_keys_of_the_block(keys, alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator)
    classes = torch.randint(-1, 4, (20,), generator=generator)
    loss = LOSS_REGISTRY.build(Block(name="SigmoidFocalLoss", **keys))
    assert torch.equal(loss(logits, classes), sigmoid_focal_loss(logits, classes, alpha, gamma))
