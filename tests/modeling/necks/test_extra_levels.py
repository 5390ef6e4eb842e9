import pytest
import torch
import torch.nn.functional as F

from detlite.modeling.necks import P6P7
from detlite.structures import ShapeSpec

INPUT_SHAPE = {"res5": ShapeSpec(12, 32), "p5": ShapeSpec(8, 32)}


@pytest.mark.parametrize(("source", "channels"), [("res5", 12), ("p5", 8)])
@pytest.mark.parametrize("relu", [False, True])
def test_p7_follows_p6_with_or_without_a_relu(source, channels, relu):
    extra = P6P7(input_shape=INPUT_SHAPE, out_channels=8, source=source, relu_before_p7=relu)
    assert extra.p6.in_channels == channels
    features = {name: torch.randn(2, spec.channels, 7, 5) for name, spec in INPUT_SHAPE.items()}
    p6, p7 = extra(features)
    assert torch.equal(p6, extra.p6(features[source]))
    assert (p6 < 0).any()
    assert torch.equal(p7, extra.p7(F.relu(p6) if relu else p6))
    assert (p6.shape, p7.shape) == ((2, 8, 4, 3), (2, 8, 2, 2))
    assert extra.num_levels == 2


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="source must be one of res5, p5, got 'res6'"):
        P6P7(input_shape=INPUT_SHAPE, out_channels=8, source="res6")
