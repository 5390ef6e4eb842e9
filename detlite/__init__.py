"""detlite: modular object detection.

The names below are the public surface; further ones are reached by submodule, e.g.
``detlite.ops.nms``, ``detlite.visualization.Visualizer``, ``detlite.engine.hooks``.

Importing the package imports neither torch nor any component: that happens when the first of
these names is used (PEP 562), so that tools which need none of them start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, ConfigError, DataError, UserError
from .registry import Registry, before_first_lookup

# For type checkers and editors only: __getattr__ imports these when one is first used.
if TYPE_CHECKING:
    from .config import Config, load_config
    from .data import (
        BATCH_TRANSFORM_REGISTRY,
        DATASET_REGISTRY,
        SAMPLER_REGISTRY,
        TRANSFORM_REGISTRY,
        BatchTransform,
        ClassificationDataset,
        DetectionDataset,
        ImageDataset,
        TrainingSampler,
        build_train_loader,
    )
    from .engine import (
        HOOK_REGISTRY,
        HookBase,
        Predictor,
        Trainer,
        build_model,
        build_test_loaders,
        build_trainer,
        evaluate_model,
    )
    from .evaluation import (
        EVALUATOR_REGISTRY,
        ClassificationEvaluator,
        COCOEvaluator,
        DatasetEvaluator,
        inference_on_dataset,
    )
    from .modeling import (
        ANCHOR_GENERATOR_REGISTRY,
        BACKBONE_REGISTRY,
        BOX_CODER_REGISTRY,
        EXTRA_LEVELS_REGISTRY,
        HEAD_REGISTRY,
        LOSS_NORMALIZER_REGISTRY,
        LOSS_REGISTRY,
        MATCHER_REGISTRY,
        META_ARCH_REGISTRY,
        NECK_REGISTRY,
        POSTPROCESSOR_REGISTRY,
        PREPROCESSOR_REGISTRY,
        AnchorGenerator,
        Backbone,
        BoxCoder,
        BoxLoss,
        ClassificationLoss,
        ExtraLevels,
        Head,
        ImageClassificationLoss,
        LossNormalizer,
        Matcher,
        MetaArch,
        Neck,
        Postprocessor,
        Preprocessor,
        QualityLoss,
    )
    from .solver import OPTIMIZER_REGISTRY, SCHEDULE_REGISTRY
    from .structures import BatchShare, ImageList, Instances, ShapeSpec

    __version__: str

__all__ = [
    "ANCHOR_GENERATOR_REGISTRY",
    "BACKBONE_REGISTRY",
    "BATCH_TRANSFORM_REGISTRY",
    "BOX_CODER_REGISTRY",
    "DATASET_REGISTRY",
    "EVALUATOR_REGISTRY",
    "EXTRA_LEVELS_REGISTRY",
    "HEAD_REGISTRY",
    "HOOK_REGISTRY",
    "LOSS_NORMALIZER_REGISTRY",
    "LOSS_REGISTRY",
    "MATCHER_REGISTRY",
    "META_ARCH_REGISTRY",
    "NECK_REGISTRY",
    "OPTIMIZER_REGISTRY",
    "POSTPROCESSOR_REGISTRY",
    "PREPROCESSOR_REGISTRY",
    "SAMPLER_REGISTRY",
    "SCHEDULE_REGISTRY",
    "TRANSFORM_REGISTRY",
    "AnchorGenerator",
    "Backbone",
    "BatchShare",
    "BatchTransform",
    "BoxCoder",
    "BoxLoss",
    "COCOEvaluator",
    "CheckpointError",
    "ClassificationDataset",
    "ClassificationEvaluator",
    "ClassificationLoss",
    "Config",
    "ConfigError",
    "DataError",
    "DatasetEvaluator",
    "DetectionDataset",
    "ExtraLevels",
    "Head",
    "HookBase",
    "ImageClassificationLoss",
    "ImageDataset",
    "ImageList",
    "Instances",
    "LossNormalizer",
    "Matcher",
    "MetaArch",
    "Neck",
    "Postprocessor",
    "Predictor",
    "Preprocessor",
    "QualityLoss",
    "Registry",
    "ShapeSpec",
    "Trainer",
    "TrainingSampler",
    "UserError",
    "__version__",
    "build_model",
    "build_test_loaders",
    "build_train_loader",
    "build_trainer",
    "evaluate_model",
    "inference_on_dataset",
    "load_config",
]

_PACKAGES = ("structures", "config", "modeling", "data", "solver", "evaluation", "engine")
_FURTHER_PACKAGES = ("checkpoint", "ops", "utils", "visualization")


def _import_packages() -> None:
    """Import all, which fills the registries, and take the public names over."""
    for package in [import_module(f".{package}", __name__) for package in _PACKAGES]:
        names = {*package.__all__} & {*__all__}
        globals().update({name: getattr(package, name) for name in names})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        globals()[name] = import_module("importlib.metadata").version("detlite")
    elif name in __all__:
        _import_packages()
    elif name in _PACKAGES + _FURTHER_PACKAGES:
        return import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES, *_FURTHER_PACKAGES})


before_first_lookup(_import_packages)
