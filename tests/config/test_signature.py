from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, Union

import pytest
import torch
from msgspec import Meta
from torchvision.transforms import v2

from detlite.config.signature import (
    REQUIRED,
    describe,
    item_annotation,
    nested_registry,
    plain_annotation,
    signature_of,
    without_none,
)
from detlite.data import TRANSFORM_REGISTRY
from detlite.modeling import BACKBONE_REGISTRY, LOSS_REGISTRY, Backbone, BoxLoss
from detlite.ranges import Fraction, PositiveInt
from detlite.registry import Block, BlockOf

HeadBlock = Annotated[Block, BlockOf("head")]


class Component:
    def __init__(self, width: "int", *, depth: PositiveInt = 3, plain=None) -> None: ...


@dataclass
class Section:
    size: int
    blocks: list[int] = field(default_factory=lambda: [1])


def test_a_class_has_the_keys_of_its_constructor():
    signature = signature_of(Component)
    assert list(signature.keys) == ["width", "depth", "plain"]
    assert (signature.keys["width"].annotation, signature.keys["width"].default) == (int, REQUIRED)
    assert signature.keys["depth"].default == 3
    assert signature.keys["plain"].annotation is Any
    assert not signature.open_ended


def test_a_function_has_the_keys_of_its_arguments():
    def component(a: int, *rest: int, b: str = "x", **others: Any): ...

    signature = signature_of(component)
    assert list(signature.keys) == ["a", "b"]
    assert signature.open_ended


def test_a_section_has_the_defaults_that_its_factories_make():
    assert signature_of(Section).keys["blocks"].default == [1]


def test_annotations_that_cannot_be_resolved_are_anything():
    def component(a: "NoSuchType" = 1): ...  # noqa: F821

    assert signature_of(component).keys["a"].annotation is Any


def test_foreign_classes_have_signatures():
    keys = signature_of(torch.optim.AdamW).keys
    assert keys["params"].default is REQUIRED
    assert keys["betas"].default == (0.9, 0.999)
    assert "brightness" in signature_of(v2.ColorJitter).keys


@pytest.mark.parametrize(
    ("annotation", "registry"),
    [
        (Backbone, BACKBONE_REGISTRY),
        (BoxLoss, LOSS_REGISTRY),
        (v2.Transform, TRANSFORM_REGISTRY),
        (Annotated[Block, BlockOf("backbone")], BACKBONE_REGISTRY),
        (int, None),
        (list[int], None),
        (list[Backbone], None),
        (Annotated[int, Meta(ge=1)], None),
        (Any, None),
        (None, None),
    ],
)
def test_an_annotation_with_an_interface_stands_for_a_block(annotation, registry):
    assert nested_registry(annotation) is registry


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int | None, (int, True)),
        (Optional[str], (str, True)),  # noqa: UP045
        (HeadBlock | None, (HeadBlock, True)),
        (int, (int, False)),
        (int | str | None, (int | str | None, False)),
    ],
)
def test_none_is_told_apart(annotation, expected):
    found, optional = without_none(annotation)
    assert optional is expected[1]
    assert found == expected[0]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (float | torch.Tensor, float),
        (tuple[float | torch.Tensor, float | torch.Tensor], tuple[float, float]),
        (list[int] | torch.Tensor, list[int]),
        (torch.Tensor | torch.device, Any),
        (tuple[int, ...], tuple[int, ...]),
        (list[PositiveInt], list[PositiveInt]),
        (Union[int, str, None], int | str | None),  # noqa: UP007
    ],
)
def test_what_yaml_cannot_hold_is_taken_out(annotation, expected):
    assert plain_annotation(annotation) == expected


def test_the_items_of_a_list_are_known():
    assert item_annotation(list[Backbone]) is Backbone
    assert item_annotation(tuple[int, int]) is None
    assert item_annotation(list) is None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (float, "a number"),
        (bool, "true or false"),
        (str, "a string"),
        (str | None, "a string or null"),
        (PositiveInt, "an integer >= 1"),
        (Fraction, "a number >= 0 and <= 1"),
        (list[str], "a list (each entry a string)"),
        (list, "a list"),
        (
            Annotated[list[int], Meta(min_length=2)],
            "a list (each entry an integer) with at least 2 entries",
        ),
        (tuple[int, int], "a list of 2: an integer, an integer"),
        (tuple[int, ...], "a list (each entry an integer)"),
        (dict[str, int], "a mapping"),
        (PositiveInt | list[PositiveInt], "an integer >= 1 or a list (each entry an integer >= 1)"),
        (Literal["BN", "GN", ""], "one of BN, GN, ''"),
        (Backbone, "a block that names the backbone"),
        (Annotated[Block, BlockOf("meta-arch")], "a block that names the meta-arch"),
        (Sequence, "Sequence"),
    ],
)
def test_an_annotation_is_described_in_words(annotation, words):
    assert describe(annotation) == words
