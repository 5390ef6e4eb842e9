"""Which components a file registers, and what a config says of them."""

from collections.abc import Mapping
from typing import Any

from ..config import Config
from ..modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, NECK_REGISTRY
from ..registry import Block, Registry, filled_registries
from .subject import Surroundings


def registered_by(before: Mapping[str, set[str]]) -> list[tuple[Registry, str]]:
    """The components that are there now and were not before."""
    return [
        (registry, name)
        for kind, registry in filled_registries().items()
        for name in registry
        if name not in before.get(kind, set())
    ]


def snapshot() -> dict[str, set[str]]:
    """The names of all components by kind."""
    return {kind: {*registry} for kind, registry in filled_registries().items()}


def blocks_named(name: str, registry: Registry, values: Any) -> list[Block]:
    """The blocks of a component in nested values of a config."""
    found: list[Block] = []
    if isinstance(values, dict):
        if values.get("name") == name and name in registry:
            found.append(Block(values))
        for value in values.values():
            found += blocks_named(name, registry, value)
    elif isinstance(values, list):
        for value in values:
            found += blocks_named(name, registry, value)
    return found


def around_of(config: Config | None) -> Surroundings:
    """The parts of a config's model, as far as it has them; those of a small model elsewhere."""
    small = Surroundings()
    if config is None or not all(key in config.model for key in ("backbone", "neck")):
        return small
    maps = BACKBONE_REGISTRY.build(config.model.backbone).output_shape()
    levels = NECK_REGISTRY.build(config.model.neck, input_shape=maps).output_shape()
    anchors = config.model.get("anchor_generator")
    num_anchors = small.num_anchors
    if anchors is not None:
        strides = [spec.stride for spec in levels.values()]
        num_anchors = ANCHOR_GENERATOR_REGISTRY.build(anchors, strides=strides).num_anchors
    return Surroundings(
        maps=maps,
        levels=levels,
        num_anchors=num_anchors,
        box_coder=config.model.get("box_coder") or small.box_coder,
    )
