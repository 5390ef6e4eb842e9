"""The model: its parts, their contracts and their assembly."""

from . import anchor_generators, backbones, heads, losses, meta_arch, necks
from .atss_matcher import ATSSMatcher
from .box_coder import DeltaBoxCoder
from .build import build_meta_arch
from .distance_coder import DistanceBoxCoder, DistributionBoxCoder
from .fcos_matcher import FCOSMatcher
from .interfaces import (
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
from .loss_normalizer import BatchNormalizer, MovingAverageNormalizer, PerImageNormalizer
from .matcher import MaxIoUMatcher
from .meta_arch import FCOS, DenseDetector, ImageClassifier, RetinaNet
from .postprocessing import NMSPostprocessor
from .preprocessing import ImageNormalizer
from .registries import (
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
)

__all__ = [
    "ANCHOR_GENERATOR_REGISTRY",
    "BACKBONE_REGISTRY",
    "BOX_CODER_REGISTRY",
    "EXTRA_LEVELS_REGISTRY",
    "FCOS",
    "HEAD_REGISTRY",
    "LOSS_NORMALIZER_REGISTRY",
    "LOSS_REGISTRY",
    "MATCHER_REGISTRY",
    "META_ARCH_REGISTRY",
    "NECK_REGISTRY",
    "POSTPROCESSOR_REGISTRY",
    "PREPROCESSOR_REGISTRY",
    "ATSSMatcher",
    "AnchorGenerator",
    "Backbone",
    "BatchNormalizer",
    "BoxCoder",
    "BoxLoss",
    "ClassificationLoss",
    "DeltaBoxCoder",
    "DenseDetector",
    "DistanceBoxCoder",
    "DistributionBoxCoder",
    "ExtraLevels",
    "FCOSMatcher",
    "Head",
    "ImageClassificationLoss",
    "ImageClassifier",
    "ImageNormalizer",
    "LossNormalizer",
    "Matcher",
    "MaxIoUMatcher",
    "MetaArch",
    "MovingAverageNormalizer",
    "NMSPostprocessor",
    "Neck",
    "PerImageNormalizer",
    "Postprocessor",
    "Preprocessor",
    "QualityLoss",
    "RetinaNet",
    "anchor_generators",
    "backbones",
    "build_meta_arch",
    "heads",
    "losses",
    "meta_arch",
    "necks",
]
