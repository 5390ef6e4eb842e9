"""The contracts of the model parts. Read these pages before you write one.

Letters in shapes: N images, H and W pixels or cells, R anchors of all levels, A anchors per cell,
K classes, G ground truths, D detections, B numbers that say a box. Boxes are XYXY in pixels of the
padded input image.

A part is a class that derives from one of these, takes its config keys as keyword arguments (names,
types and defaults of the signature are what a YAML may say), and is registered under its own name.
"""

from .losses import (
    BoxLoss,
    ClassificationLoss,
    ImageClassificationLoss,
    Loss,
    LossNormalizer,
    QualityLoss,
)
from .networks import (
    Backbone,
    ExtraLevels,
    Head,
    MetaArch,
    Neck,
    Postprocessor,
    Preprocessor,
)
from .targets import (
    AnchorGenerator,
    BoxCoder,
    Matcher,
)

__all__ = [
    "AnchorGenerator",
    "Backbone",
    "BoxCoder",
    "BoxLoss",
    "ClassificationLoss",
    "ExtraLevels",
    "Head",
    "ImageClassificationLoss",
    "Loss",
    "LossNormalizer",
    "Matcher",
    "MetaArch",
    "Neck",
    "Postprocessor",
    "Preprocessor",
    "QualityLoss",
]
