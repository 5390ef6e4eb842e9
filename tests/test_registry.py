import collections
import functools

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from detlite import OPTIMIZER_REGISTRY, TRANSFORM_REGISTRY, ConfigError, Registry
from detlite.registry import REGISTRIES, Block, block_arguments


@pytest.fixture
def registry(monkeypatch):
    """A registry of animals, which no annotation of another test finds."""
    monkeypatch.delitem(REGISTRIES, "animal", raising=False)
    yield Registry("animal", computed={"legs": "the zoo"}, shared_keys={"price": (int, 0)})
    del REGISTRIES["animal"]


class Cat:
    def __init__(self, *, color="grey", legs=None):
        self.color, self.legs = color, legs


def test_the_decorator_works_with_and_without_parentheses(registry):
    @registry.register
    class Cow: ...

    @registry.register()
    class Horse: ...

    assert (registry.get("Cow"), registry.get("Horse")) == (Cow, Horse)
    assert list(registry) == ["Cow", "Horse"]
    assert "Cow" in registry
    assert "Sheep" not in registry
    assert repr(registry) == "Registry('animal': Cow, Horse)"


def test_a_function_is_a_component_too(registry):
    @registry.register
    def grey_cat(*, legs):
        return Cat(color="grey", legs=legs)

    assert registry.build({"name": "grey_cat"}, legs=4).legs == 4


def test_registering_returns_the_component_itself(registry):
    assert registry.register(Cat) is Cat
    assert registry.register()(Cat) is Cat


def test_a_second_component_of_a_name_is_refused_and_both_places_are_named(registry):
    registry.register(Cat)
    other = type("Cat", (), {"__module__": collections.OrderedDict.__module__})
    with pytest.raises(ValueError, match=r"animal 'Cat' is already registered, by .*test_registry"):
        registry.register(other)
    assert registry.get("Cat") is Cat


def test_the_same_file_imported_twice_replaces_its_components(registry):
    registry.register(Cat)
    again = type("Cat", (), {"__module__": Cat.__module__})
    assert registry.register(again) is again
    assert registry.get("Cat") is again


def test_a_class_written_at_a_prompt_can_be_registered_twice(registry):
    for _ in range(2):
        registry.register(type("Dog", (), {"__module__": "__main__"}))
    assert "Dog" in registry


def test_an_unknown_name_tells_the_nearest_and_all_known_ones(registry):
    registry.register(Cat)
    with pytest.raises(ConfigError) as error:
        registry.get("cats")
    assert str(error.value) == (
        "no animal named 'cats'; did you mean 'Cat'? Known: Cat.\n"
        "    A component of your own must be listed under `imports:` in the config."
    )
    with pytest.raises(ConfigError, match=r"no animal named 'Elephant'\. Known: Cat\."):
        registry.get("Elephant")


def test_an_empty_registry_says_so(registry):
    with pytest.raises(ConfigError, match="Known: none"):
        registry.get("Cat")


@pytest.mark.parametrize("name", [None, 3, ["Cat"], {"name": "Cat"}])
def test_a_name_that_is_no_text_is_a_config_error(registry, name):
    with pytest.raises(ConfigError, match="no animal named"):
        registry.get(name)


@pytest.mark.parametrize(
    ("registry", "name", "component"),
    [
        (OPTIMIZER_REGISTRY, "AdamW", torch.optim.AdamW),
        (TRANSFORM_REGISTRY, "ColorJitter", v2.ColorJitter),
    ],
)
def test_classes_of_foreign_modules_are_found_by_name(registry, name, component):
    assert registry.get(name) is component
    assert name not in registry


def test_only_subclasses_of_the_interface_are_taken_from_foreign_modules():
    for name in ("lr_scheduler", "functional", "__doc__"):
        with pytest.raises(ConfigError):
            OPTIMIZER_REGISTRY.get(name)
    with pytest.raises(ConfigError, match="no transform named 'InterpolationMode'"):
        TRANSFORM_REGISTRY.get("InterpolationMode")


def test_foreign_names_are_suggested_and_their_modules_named():
    with pytest.raises(ConfigError, match=r"did you mean 'AdamW'\? .*the classes of torch\.optim"):
        OPTIMIZER_REGISTRY.get("AdmaW")


def test_a_foreign_class_is_built_with_computed_arguments():
    parameters = [nn.Parameter(torch.zeros(2))]
    optimizer = OPTIMIZER_REGISTRY.build({"name": "AdamW", "lr": 0.5}, params=parameters)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_component_is_given_the_computed_values_that_it_names(registry):
    registry.register(Cat)
    cat = registry.build({"name": "Cat", "color": "black"}, legs=4, wings=0)
    assert (cat.color, cat.legs) == ("black", 4)


def test_a_component_that_takes_anything_is_given_everything(registry):
    @registry.register
    def anything(**values):
        return values

    assert registry.build({"name": "anything", "a": 1}, legs=4) == {"a": 1, "legs": 4}


def test_shared_keys_are_not_passed_on(registry):
    registry.register(Cat)
    assert registry.build({"name": "Cat", "price": 100}).color == "grey"


def test_from_config_gets_the_block_and_the_computed_values_that_it_names(registry):
    @registry.register
    class Herd:
        def __init__(self, block, legs):
            self.block, self.legs = block, legs

        @classmethod
        def from_config(cls, block, legs):
            return cls(block, legs)

    herd = registry.build({"name": "Herd", "size": 3}, legs=4, wings=2)
    assert herd.block.size == 3
    assert isinstance(herd.block, Block)
    assert herd.legs == 4


def test_a_wrong_key_is_an_error_that_lists_the_keys_without_the_computed_ones(registry):
    registry.register(Cat)
    with pytest.raises(ConfigError, match=r"animal 'Cat': .*'colour'; its keys are color$"):
        registry.build({"name": "Cat", "colour": "black"})


def test_an_error_within_the_constructor_is_left_as_it_is(registry):
    @registry.register
    class Snake:
        def __init__(self):
            raise TypeError("snakes have no legs")

    with pytest.raises(TypeError, match="snakes have no legs"):
        registry.build({"name": "Snake"})


def test_a_block_reads_its_keys_as_attributes_and_says_what_it_has():
    block = Block(name="FPN", out_channels=256)
    assert block.out_channels == 256
    with pytest.raises(AttributeError, match="no 'norm'; it has name, out_channels"):
        block.norm  # noqa: B018
    assert block_arguments(block) == {"out_channels": 256}
    assert block_arguments(block, without=["out_channels"]) == {}


def test_a_partial_of_a_function_is_no_component_name(registry):
    with pytest.raises(AttributeError):
        registry.register(functools.partial(Cat))


def test_memory_that_a_block_would_need_is_an_error_with_its_values():
    registry = Registry("layer")

    @registry.register
    class Large:
        def __init__(self, *, channels: int = 1) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(ConfigError, match=r"layer 'Large' cannot be built: .*\n.*channels=7"):
        registry.build({"name": "Large", "channels": 7})
