import pytest
from torchvision.transforms import v2

from detlite.data import datasets
from detlite.data.registries import DATASET_REGISTRY, TRANSFORM_REGISTRY
from detlite.errors import ConfigError


def test_every_data_set_has_its_name_in_the_registry():
    assert {*datasets.__all__} <= {*DATASET_REGISTRY}


def test_transforms_of_torchvision_are_known_as_they_are():
    assert TRANSFORM_REGISTRY.get("ColorJitter") is v2.ColorJitter


@pytest.mark.parametrize("name", ["functional", "InterpolationMode", "ColourJitter"])
def test_what_is_no_transform_is_refused(name):
    with pytest.raises(ConfigError, match=f"no transform named '{name}'"):
        TRANSFORM_REGISTRY.get(name)
