"""detlite: modular object detection.

The names below are the public surface; further ones are reached by submodule, e.g.
``detlite.ops.nms``, ``detlite.visualization.Visualizer``, ``detlite.engine.hooks``.
"""

from importlib.metadata import version

from .config import Config, load_config
from .data import DATASET_REGISTRY, SAMPLER_REGISTRY, TRANSFORM_REGISTRY, DetectionDataset
from .engine import (
    HOOK_REGISTRY,
    HookBase,
    Predictor,
    Trainer,
    build_model,
    build_trainer,
    evaluate_model,
)
from .errors import CheckpointError, ConfigError, DataError, UserError
from .evaluation import (
    EVALUATOR_REGISTRY,
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
    Head,
    Matcher,
    MetaArch,
    Neck,
)
from .registry import Registry
from .solver import OPTIMIZER_REGISTRY, SCHEDULE_REGISTRY
from .structures import ImageList, Instances, ShapeSpec

__version__ = version("detlite")

__all__ = [
    "ANCHOR_GENERATOR_REGISTRY",
    "BACKBONE_REGISTRY",
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
    "BoxCoder",
    "BoxLoss",
    "COCOEvaluator",
    "CheckpointError",
    "ClassificationLoss",
    "Config",
    "ConfigError",
    "DataError",
    "DatasetEvaluator",
    "DetectionDataset",
    "Head",
    "HookBase",
    "ImageList",
    "Instances",
    "Matcher",
    "MetaArch",
    "Neck",
    "Predictor",
    "Registry",
    "ShapeSpec",
    "Trainer",
    "UserError",
    "__version__",
    "build_model",
    "build_trainer",
    "evaluate_model",
    "inference_on_dataset",
    "load_config",
]
