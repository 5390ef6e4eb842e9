"""Complete blocks: keys checked as in a config, small parts where a component needs others."""

from collections.abc import Mapping
from typing import Any

from ..config.check import Checker
from ..config.signature import REQUIRED, nested_registry, signature_of, without_none
from ..config.tree import Tree
from ..errors import ConfigError
from ..registry import Block, Registry

SMALL_PARTS: dict[str, dict[str, Any]] = {
    "backbone": {"name": "ResNet", "depth": 18, "norm": "GN", "freeze_at": 0},
    "neck": {"name": "FPN", "out_channels": 16},
    "anchor generator": {
        "name": "GridAnchorGenerator", "scales_per_octave": 1, "aspect_ratios": [0.5, 1.0, 2.0],
    },
    "head": {"name": "RetinaNetHead", "num_convs": 1},
}  # fmt: skip
"""The parts of a small detector, where a block names none."""


def complete_block(registry: Registry, block: Mapping[str, Any]) -> Block:
    """Check a block as the config does, and fill in its defaults and missing parts.

    Raises:
        ConfigError: A key is wrong or missing, with every one of them.
    """
    values = {**_missing_parts(registry, block), **block}
    checker = Checker(Tree())
    checked = checker.block(registry, values, (registry.kind,))
    if checker.problems:
        raise ConfigError(
            "\n".join(
                [
                    *checker.problems,
                    "    Give values with --set key=value or --block '{name: ..., key: value}', or "
                    "a config that has the block with --config my.yaml",
                ]
            )
        )
    assert isinstance(checked, Block)
    return checked


def small_detector(**parts: Any) -> Block:
    """The block of a small RetinaNet, with some parts replaced."""
    return Block(name="RetinaNet", **{**_named_parts(), **parts})


def _named_parts() -> dict[str, Any]:
    return {kind.replace(" ", "_"): Block(block) for kind, block in SMALL_PARTS.items()}


def _missing_parts(registry: Registry, block: Mapping[str, Any]) -> dict[str, Any]:
    component = registry.get(block.get("name", ""))
    missing = {}
    for name, key in signature_of(component).keys.items():
        kind = nested_registry(without_none(key.annotation)[0])
        wanted = key.default is REQUIRED and name not in registry.computed and name not in block
        if wanted and kind is not None and kind.kind in SMALL_PARTS:
            missing[name] = dict(SMALL_PARTS[kind.kind])
    return missing
