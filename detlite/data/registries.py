"""The registries of data parts: what each holds, and what it is given beside its config keys."""

from torchvision.transforms import v2

from ..registry import Registry
from .image_dataset import ImageDataset
from .samplers import (
    RepeatedAugmentSampler,
    RepeatFactorSampler,
    SequentialSampler,
    ShuffleSampler,
    TrainingSampler,
)

DATASET_REGISTRY = Registry("dataset", ImageDataset)

TRANSFORM_REGISTRY = Registry("transform", v2.Transform, modules=(v2,))

SAMPLER_REGISTRY = Registry(
    "sampler",
    TrainingSampler,
    computed={
        "images": "the data sets of `data.train`",
        "image_classes": "the data sets of `data.train`",
        "seed": "`seed`",
    },
)
for _sampler in (
    ShuffleSampler,
    SequentialSampler,
    RepeatFactorSampler,
    RepeatedAugmentSampler,
):
    SAMPLER_REGISTRY.register(_sampler)
