"""Classification models of torchvision as backbones."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
import torchvision
from msgspec import Meta
from torch import Tensor, nn

from ...errors import did_you_mean
from ..layers import FrozenBatchNorm2d
from ..registries import BACKBONE_REGISTRY
from ._foreign import (
    PROBE_SIZE,
    FeatureMap,
    ForeignBackbone,
    choose_maps,
    feature_map,
    without_weights,
)


@BACKBONE_REGISTRY.register
class TorchvisionBackbone(ForeignBackbone):
    """A classification model of torchvision by its name, up to the last map that is asked for.

    A stage's map is the last of its stride, with what torchvision puts there for its classifier:
    res5 of an EfficientNet has 1280 channels. Networks that begin with padding-free convolutions
    (AlexNet, SqueezeNet, Inception) and plain vision transformers have no such maps.

    ``model.weights`` takes torchvision's file for the same model, a path or a published name such
    as ``torchvision://ConvNeXt_Tiny_Weights.IMAGENET1K_V1``.

    Args:
        model: As ``torchvision.models.get_model`` knows it.
        norm: "BN" trains batch normalizations, "FrozenBN" keeps their statistics, scale and shift;
            other normalizations stay as they are.
        out_features: Maps that are returned, named by their stride: res2 at 4 to res5 at 32.
        arguments: Further arguments of the model's constructor, e.g. ``stochastic_depth_prob``.
    """

    def __init__(
        self,
        *,
        model: str = "convnext_tiny",
        norm: Literal["BN", "FrozenBN"] = "BN",
        out_features: Annotated[
            tuple[Literal["res2", "res3", "res4", "res5"], ...], Meta(min_length=1)
        ] = ("res3", "res4", "res5"),
        arguments: dict[str, Any] | None = None,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if model not in known:
            raise ValueError(
                f"torchvision has no classification model '{model}'{did_you_mean(model, known)}; "
                "torchvision.models.list_models() has them all"
            )
        try:
            whole = torchvision.models.get_model(model, weights=None, **(arguments or {}))
        except TypeError as error:
            raise ValueError(f"model '{model}' does not take these arguments: {error}") from error
        chain = _chain(whole, model)
        maps = choose_maps((each for _, each in chain if each), out_features, model)
        super().__init__(maps)
        last_paths = {each.stride: path for path, each in chain if each}
        self._names = {last_paths[each.stride]: name for name, each in maps.items()}
        paths = [path for path, _ in chain]
        self._paths = paths[: 1 + max(paths.index(path) for path in self._names)]
        self.body = _tree({path: whole.get_submodule(path) for path in self._paths})
        if norm == "FrozenBN":
            FrozenBatchNorm2d.convert(self.body)
        self._look(model)

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        x = images
        features = {}
        for path in self._paths:
            x = self.body.get_submodule(path)(x)
            if path in self._names:
                features[self._names[path]] = x
        return features

    def layers(self) -> list[str]:
        """The blocks of the network: what its stages are made of."""
        return [
            f"body.{block}"
            for path in self._paths
            for block in _blocks(path, self.body.get_submodule(path))
        ]


def _chain(model: nn.Module, name: str) -> list[tuple[str, FeatureMap | None]]:
    """The modules that images go through one after the other, each with the map that it makes.

    Raises:
        ValueError: The model cannot take the images that it is looked at with.
    """
    probe = without_weights(model)
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def remember(path: str) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...], returned: Tensor) -> None:
            calls[path] = (given[0], returned)

        return hook

    for path in _candidates(probe, ""):
        probe.get_submodule(path).register_forward_hook(remember(path))
    images = torch.empty(1, 3, *PROBE_SIZE, device="meta")
    try:
        with torch.no_grad():
            probe(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"model '{name}' does not take images of {PROBE_SIZE[0]} x {PROBE_SIZE[1]} pixels "
            f"({error}); a detector needs one that takes any size"
        ) from error
    chain: list[tuple[str, FeatureMap | None]] = []
    x = images
    for path in sorted(_units(probe, "", calls), key=list(calls).index):
        given, returned = calls[path]
        # Something that is no module was computed between; what follows cannot be repeated here.
        if given is not x:
            break
        chain.append((path, feature_map(returned.shape)))
        x = returned
    return chain


def _candidates(module: nn.Module, prefix: str) -> Iterator[str]:
    """Paths of the children, and of what sequences among them are made of."""
    for name, child in module.named_children():
        yield prefix + name
        if isinstance(child, nn.Sequential):
            yield from _candidates(child, f"{prefix}{name}.")


def _units(
    module: nn.Module, prefix: str, calls: Mapping[str, tuple[Tensor, Tensor]]
) -> Iterator[str]:
    """Of these paths those to take as a whole.

    A sequence that halves sizes once is one of them: a convolution before its stride makes no map
    of the stage before.
    """
    for name, child in module.named_children():
        path = prefix + name
        if path not in calls:
            continue
        before, after = (feature_map(x.shape) for x in calls[path])
        one_stage = before and after and after.stride <= 2 * before.stride
        if isinstance(child, nn.Sequential) and not one_stage:
            yield from _units(child, f"{path}.", calls)
        else:
            yield path


def _tree(units: Mapping[str, nn.Module]) -> nn.Module:
    """Modules at their paths in plain containers, so that the names of weights stay."""
    root = nn.Module()
    for path, unit in units.items():
        *parents, name = path.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, nn.Module())
            node = node.get_submodule(parent)
        node.add_module(name, unit)
    return root


def _blocks(path: str, module: nn.Module) -> Iterator[str]:
    """The parts of a sequence that are more than single layers; else the module itself."""
    children = dict(module.named_children())
    composed = any(any(True for _ in child.children()) for child in children.values())
    if isinstance(module, nn.Sequential) and composed:
        for name, child in children.items():
            yield from _blocks(f"{path}.{name}", child)
    else:
        yield path
