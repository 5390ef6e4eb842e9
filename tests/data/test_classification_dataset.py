"""Classification data through transforms, samplers and loaders."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from detlite.config.schema import (
    ClipGradients,
    Config,
    DataSection,
    EMASection,
    SolverSection,
    TestSection,
    TrainSection,
)
from detlite.data import (
    DATASET_REGISTRY,
    TRANSFORM_REGISTRY,
    ClassificationDataset,
    TrainingData,
    build_datasets,
    build_train_loader,
)
from detlite.data.mapper import seeded
from detlite.data.samplers import SamplePosition
from detlite.errors import ConfigError, DataError
from detlite.registry import Block


class Noise(ClassificationDataset):
    """Random pixels of several sizes; classes 0, 0, 0, 1."""

    def __init__(self, **changes):
        values = {
            "name": "noise",
            "class_names": ["a", "b"],
            "folder": "",
            "file_names": [f"{i}.png" for i in range(4)],
            "classes": [0, 0, 0, 1],
        }
        super().__init__(**{**values, **changes})

    def read_image(self, i):
        generator = torch.Generator().manual_seed(i)
        return torch.randint(256, (3, 40 + i, 52 - i), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    "block",
    [
        {"name": "RandomResizedCrop", "size": 16, "interpolation": "bicubic"},
        {"name": "RandAugment", "magnitude": 9, "interpolation": "bilinear"},
        {"name": "TrivialAugmentWide", "interpolation": "bilinear"},
        {"name": "AutoAugment", "policy": "cifar10"},
        {"name": "RandomErasing", "p": 1.0, "value": [124.0, 116.0, 104.0]},
        {"name": "ColorJitter", "brightness": 0.4},
        {"name": "Resize", "size": 20},
        {"name": "CenterCrop", "size": 20},
    ],
    ids=lambda block: block["name"],
)
def test_torchvisions_transforms_work_by_name_as_they_do_there(block):
    arguments = {key: value for key, value in block.items() if key != "name"}
    if "interpolation" in arguments:
        arguments["interpolation"] = v2.InterpolationMode(arguments["interpolation"])
    if "policy" in arguments:
        arguments["policy"] = v2.AutoAugmentPolicy(arguments["policy"])
    dataset = Noise()
    sample = TrainingData([dataset], [TRANSFORM_REGISTRY.build(block)], seed=5)[
        SamplePosition(7, 3)
    ]
    with seeded(5, 7):
        expected = getattr(v2, block["name"])(**arguments)(tv_tensors.Image(dataset.read_image(3)))
    assert type(sample["image"]) is torch.Tensor
    assert torch.equal(sample["image"], expected.as_subclass(torch.Tensor))
    assert sample["gt_class"].item() == 1
    assert sample["gt_class"].dtype == torch.int64
    assert "instances" not in sample
    assert (sample["height"], sample["width"], sample["image_id"]) == (43, 49, "3.png")


def test_a_loader_repeats_rare_classes_and_needs_no_sizes():
    sampler = Block(name="RepeatFactorSampler", threshold=1.0)
    config = Config(
        model=Block(name="ImageClassifier"),
        data=DataSection(batch_size=2, num_workers=0, sampler=sampler, aspect_ratio_grouping=True),
        solver=SolverSection(clip_gradients=ClipGradients()),
        train=TrainSection(ema=EMASection()),
        test=TestSection(),
    )
    loader = build_train_loader(config, [Noise(), Noise(name="more")])
    sampler = loader.loader.batch_sampler.sampler
    # One image of four shows class b, so that it comes sqrt(4) times.
    assert sampler.factors.tolist() == pytest.approx(([(4 / 3) ** 0.5] * 3 + [2.0]) * 2)
    assert loader.loader.batch_sampler.groups is None
    assert [len(batch) for batch, _ in zip(loader, range(3), strict=False)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "a"]}, "has two classes called 'a'"),
        ({"classes": [0, 0, 0, 2]}, r"must lie in \[0, 2\), got 2"),
        ({"classes": [0]}, "4 file names and 1 classes of images"),
        ({"file_names": ["x"] * 4}, "names the image 'x' more than once"),
        ({"file_names": [], "classes": []}, "has 0 images of 2 classes"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        Noise(**changes)


def test_a_run_has_one_task(monkeypatch):
    monkeypatch.setitem(DATASET_REGISTRY._components, "Noise", Noise)
    blocks = [Block(name="Shapes", num_images=1), Block(name="Noise")]
    with pytest.raises(ConfigError, match="'noise' is a data set for classification, 'shapes_0' "):
        build_datasets(blocks, "data.train")


def test_an_index_beyond_the_images_is_an_error():
    with pytest.raises(IndexError, match="index 4 is out of range for the 4 images of noise"):
        Noise()[4]
    assert np.array_equal(Noise().num_targets(), np.ones(4))
