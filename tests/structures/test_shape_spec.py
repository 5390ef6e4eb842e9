import dataclasses

import pytest

from detlite import ShapeSpec


def test_a_shape_spec_is_a_value():
    spec = ShapeSpec(256, 8)
    assert (spec.channels, spec.stride) == (256, 8)
    assert spec == ShapeSpec(channels=256, stride=8)
    assert {spec: "p3"}[ShapeSpec(256, 8)] == "p3"
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.stride = 16
