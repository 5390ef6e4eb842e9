"""Models of timm as backbones (https://github.com/huggingface/pytorch-image-models)."""

from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ...errors import UserError, did_you_mean
from ..registries import BACKBONE_REGISTRY
from ._foreign import PROBE_SIZE, ForeignBackbone, choose_maps, feature_map, without_weights


@BACKBONE_REGISTRY.register
class TimmBackbone(ForeignBackbone):
    """A model of timm by its name, with the maps that timm's ``features_only`` takes of it.

    Needs timm: ``pip install timm``. What a model computes beyond the maps that are asked for is
    taken out; what cannot be taken out is not trained.

    ``model.weights`` takes a file of timm's for the same model, a path or a URL.

    Args:
        model: As ``timm.create_model`` knows it, e.g. "convnext_atto" or "resnet18.a1_in1k".
        pretrained: Let timm fetch the weights that it publishes under this name, from the network
            or from its cache.
        norm: "BN" trains batch normalizations, "FrozenBN" keeps their statistics, scale and shift;
            other normalizations stay as they are.
        out_features: Maps that are returned, named by their stride: res2 at 4 to res5 at 32.
        arguments: Further arguments of ``timm.create_model``, e.g. ``drop_path_rate``.
    """

    def __init__(
        self,
        *,
        model: str = "resnet50",
        pretrained: bool = False,
        norm: Literal["BN", "FrozenBN"] = "BN",
        out_features: Annotated[
            tuple[Literal["res2", "res3", "res4", "res5"], ...], Meta(min_length=1)
        ] = ("res3", "res4", "res5"),
        arguments: dict[str, Any] | None = None,
    ) -> None:
        timm = _import_timm()
        arguments = {**_checked(timm, model, arguments), "features_only": True}
        found = {i: feature_map(shape) for i, shape in _look_at(timm, model, arguments).items()}
        maps = choose_maps((each for each in found.values() if each), out_features, model)
        super().__init__(maps)
        indices = {each.name: i for i, each in found.items() if each}
        arguments["out_indices"] = tuple(indices[name] for name in maps)
        try:
            self.body = timm.create_model(model, pretrained=pretrained, **arguments)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise UserError(
                f"timm cannot fetch its weights of '{model}': {error}\n"
                "    Without a network set pretrained: false and give the file as model.weights."
            ) from error
        if norm == "FrozenBN":
            # timm's own, because its batch normalizations may hold an activation as well.
            self.body = timm.layers.freeze_batch_norm_2d(self.body)
        self._look(model)

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.maps, self.body(images), strict=True))

    def layers(self) -> list[str]:
        """The modules that timm's model consists of, the parts of its sequences one by one."""
        names: list[str] = []
        for name, child in self.body.named_children():
            inner = [f"body.{name}.{part}" for part, _ in child.named_children()]
            names += inner if isinstance(child, torch.nn.Sequential) else [f"body.{name}"]
        return names


def _import_timm() -> ModuleType:
    try:
        import timm  # an optional dependency
    except ImportError as error:
        raise UserError("TimmBackbone needs timm: pip install timm") from error
    module: ModuleType = timm
    return module


def _checked(timm: ModuleType, model: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
    if not timm.is_model(model):
        raise ValueError(
            f"timm {timm.__version__} has no model '{model}'"
            f"{did_you_mean(model, timm.list_models())}; timm.list_models() has them all"
        )
    taken = sorted({"features_only", "out_indices", "pretrained"} & set(arguments or {}))
    if taken:
        raise ValueError(
            f"arguments must not hold {', '.join(taken)}: they follow from the keys out_features "
            "and pretrained"
        )
    return arguments or {}


def _look_at(timm: ModuleType, model: str, arguments: dict[str, Any]) -> dict[int, tuple[int, ...]]:
    """The shapes of timm's maps by their ``out_indices``, for images of PROBE_SIZE."""
    try:
        with torch.device("meta"):
            whole = timm.create_model(model, **arguments)
    except TypeError as error:
        raise ValueError(f"model '{model}' does not take these arguments: {error}") from error
    try:
        with torch.no_grad():
            outputs = without_weights(whole)(torch.empty(1, 3, *PROBE_SIZE, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"model '{model}' does not take images of {PROBE_SIZE[0]} x {PROBE_SIZE[1]} pixels "
            f"({error}); a detector needs one that takes any size. Some do with "
            "arguments: {strict_img_size: false}"
        ) from error
    indices = whole.feature_info.out_indices
    return {i: tuple(x.shape) for i, x in zip(indices, outputs, strict=True)}
