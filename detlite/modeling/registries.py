"""The registries of model parts: what each holds, and what it is given beside its config keys."""

from ..ranges import Fraction
from ..registry import Registry
from .interfaces import (
    AnchorGenerator,
    Backbone,
    BoxCoder,
    ExtraLevels,
    Head,
    Loss,
    LossNormalizer,
    Matcher,
    MetaArch,
    Neck,
    Postprocessor,
    Preprocessor,
)

_CLASSES = "the classes of `data.train`"

META_ARCH_REGISTRY = Registry(
    "meta-arch",
    MetaArch,
    computed={"num_classes": _CLASSES},
    shared_keys={
        # A path, a URL or a published name, of detlite or of a peer; see detlite.checkpoint.
        "weights": (str, ""),
        # Classes of the file's rows, in order, where the file does not say them.
        "weights_class_names": (list[str] | None, None),
        # Share of the backbone that the file must hold, or it is an error.
        "weights_threshold": (Fraction, 0.9),
    },
)
BACKBONE_REGISTRY = Registry("backbone", Backbone)
NECK_REGISTRY = Registry("neck", Neck, computed={"input_shape": "the backbone's output_shape()"})
EXTRA_LEVELS_REGISTRY = Registry(
    "extra levels",
    ExtraLevels,
    computed={
        "input_shape": "the neck's inputs and outputs",
        "out_channels": "the neck's out_channels",
    },
)
ANCHOR_GENERATOR_REGISTRY = Registry(
    "anchor generator", AnchorGenerator, computed={"strides": "the neck's output_shape()"}
)
HEAD_REGISTRY = Registry(
    "head",
    Head,
    computed={
        "input_shape": "the neck's output_shape()",
        "num_anchors": "the anchor generator",
        "num_classes": _CLASSES,
        "code_size": "the box coder",
    },
)
MATCHER_REGISTRY = Registry("matcher", Matcher)
BOX_CODER_REGISTRY = Registry("box coder", BoxCoder)
LOSS_REGISTRY = Registry("loss", Loss, computed={"num_classes": _CLASSES})
LOSS_NORMALIZER_REGISTRY = Registry("loss normalizer", LossNormalizer)
PREPROCESSOR_REGISTRY = Registry("preprocessor", Preprocessor)
POSTPROCESSOR_REGISTRY = Registry("postprocessor", Postprocessor)
