"""MixUp and CutMix against torchvision's, in the loader and on any number of workers."""

import itertools
import pathlib

import pytest
import torch
from torchvision.transforms import v2

from detlite import ConfigError, DataError, load_config
from detlite.data import build_datasets, build_train_loader, build_transforms
from detlite.data.batch_transforms import (
    BATCH_TRANSFORM_REGISTRY,
    BatchMixer,
    RandomChoice,
    build_batch_mixer,
)
from detlite.data.classification_dataset import ClassificationDataset
from detlite.data.mapper import BrokenSample
from detlite.registry import Block

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs/quickstart.yaml"
K = 5


class Noise(ClassificationDataset):
    """Eight images of noise, 12 x 12, without files."""

    def __init__(self, size=12):
        names = [f"{i}.png" for i in range(8)]
        super().__init__(
            name="noise",
            class_names=[str(k) for k in range(K)],
            folder="",
            file_names=names,
            classes=[i % K for i in range(8)],
        )
        self.size = size

    def read_image(self, i):
        generator = torch.Generator().manual_seed(i)
        return torch.randint(256, (3, self.size, self.size), generator=generator).to(torch.uint8)


def samples(count=6, start=100):
    dataset = Noise()
    return [
        {"image": dataset.read_image(i), "gt_class": torch.tensor(i % K), "position": start + i}
        for i in range(count)
    ]


def mixer(*blocks, seed=0):
    transforms = [BATCH_TRANSFORM_REGISTRY.build(block, num_classes=K) for block in blocks]
    return BatchMixer(transforms, num_classes=K, seed=seed)


MIXUP, CUTMIX = {"name": "MixUp", "alpha": 0.2}, {"name": "CutMix", "alpha": 1.0}
CHOICE = {"name": "RandomChoice", "transforms": [MIXUP, CUTMIX]}


def stacked(batch, key):
    return torch.stack([sample[key] for sample in batch])


@pytest.mark.parametrize(("block", "peer"), [(MIXUP, v2.MixUp), (CUTMIX, v2.CutMix)])
def test_a_batch_is_mixed_as_by_torchvision_from_the_same_random_numbers(block, peer, monkeypatch):
    drawn = []

    def keep(self, images, labels):
        drawn.append(torch.random.get_rng_state())
        return original(self, images, labels)

    original = peer.forward
    monkeypatch.setattr(peer, "forward", keep)
    mixed = mixer(block)(samples())
    images, classes = stacked(samples(), "image").float(), stacked(samples(), "gt_class")
    torch.random.set_rng_state(drawn[0])
    expected = peer(alpha=block["alpha"], num_classes=K)(images, classes)
    assert torch.equal(stacked(mixed, "image"), expected[0])
    assert torch.equal(stacked(mixed, "gt_probs"), expected[1])
    assert not torch.equal(expected[0], images)
    torch.testing.assert_close(stacked(mixed, "gt_probs").sum(dim=1), torch.ones(6))
    assert all("gt_class" not in sample for sample in mixed)


def test_mixing_is_a_function_of_seed_and_position_and_touches_no_global_random_numbers():
    before = torch.random.get_rng_state()
    images = {
        (seed, start): stacked(mixer(CHOICE, seed=seed)(samples(start=start)), "image")
        for seed in (0, 1)
        for start in (100, 107)
    }
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(images[0, 100], stacked(mixer(CHOICE)(samples()), "image"))
    assert len({tuple(value.flatten().tolist()) for value in images.values()}) == 4


@pytest.mark.parametrize(("p", "shares"), [(None, (0.5, 0.5)), ([0.9, 0.3], (0.75, 0.25))])
def test_a_choice_takes_each_as_often_as_its_weight_says(p, shares):
    taken = [0, 0]

    def counting(which):
        def transform(images, probs):
            taken[which] += 1
            return images, probs

        return transform

    choice = RandomChoice(transforms=[counting(0), counting(1)], p=p)
    mix = BatchMixer([choice], num_classes=K, seed=0)
    for start in range(400):
        mix(samples(2, start=start))
    assert [count / 400 for count in taken] == pytest.approx(shares, abs=0.06)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({**CHOICE, "p": [1.0]}, "p needs 2 entries, one a transform, got 1"),
        ({**CHOICE, "p": [0.0, 0.0]}, "p needs an entry above 0"),
        ({"name": "RandomChoice", "transforms": []}, "transforms needs at least one block"),
    ],
)
def test_a_choice_of_nothing_is_refused(block, message):
    with pytest.raises(ValueError, match=message):
        mixer(block)


def test_broken_samples_pass_and_a_batch_without_transforms_is_itself():
    batch = [*samples(), BrokenSample("no.jpg cannot be read")]
    assert mixer(MIXUP)(batch) is batch
    assert mixer()(batch) is batch


def config_of(*overrides):
    keys = [
        "data.train=[{name: Shapes, num_images: 8}]",
        "data.batch_size=4",
        "data.batch_transforms=[{name: RandomChoice, transforms: [{name: MixUp}, {name: CutMix}]}]",
    ]
    return load_config(QUICKSTART, [*keys, *overrides])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_mixes_the_same_on_any_number_of_workers(workers):
    config = config_of(f"data.num_workers={workers}", "data.train_transforms=[]")
    loader = build_train_loader(config, [Noise()])
    batches = iter(loader)
    found = [next(batches) for _ in range(2)]
    loader.close()
    data = loader.data
    mix = build_batch_mixer(config.data.batch_transforms, [Noise()], config.seed)
    keys = iter(loader.batches)
    expected = [mix([data[key] for key in next(keys)]) for _ in range(2)]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(stacked(ours, "image"), stacked(theirs, "image"))
        assert torch.equal(stacked(ours, "gt_probs"), stacked(theirs, "gt_probs"))
        assert ours[0]["image"].dtype == torch.float32


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_two_sizes_are_an_error_that_says_what_to_do(workers):
    config = config_of(f"data.num_workers={workers}", "data.train_transforms=[]")
    loader = build_train_loader(config, [Noise(12), Noise(9)])
    message = (
        r"^data.batch_transforms need images of one size, but one batch has images of 9 x 9 and "
        r"12 x 12 pixels \(height x width\); .*, as RandomResizedCrop does$"
    )
    with pytest.raises(DataError, match=message):
        list(itertools.islice(loader, 4))


def test_boxes_cannot_be_mixed():
    config = config_of("data.num_workers=0")
    with pytest.raises(ConfigError, match=r"\(RandomChoice\) mix images of one class each"):
        build_train_loader(config, build_datasets(config.data.train, "data.train"))


def test_the_number_of_classes_is_no_key():
    with pytest.raises(ConfigError, match=r"num_classes.*classes of the data sets of `data.train`"):
        config_of("data.batch_transforms=[{name: MixUp, num_classes: 3}]")


def test_mixup_among_the_transforms_of_one_image_is_refused():
    with pytest.raises(ConfigError, match=r"put it in data\.batch_transforms"):
        build_transforms([Block(name="MixUp")])
