"""Checks of data parts: data sets, transforms, the order of samples."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ..data import ClassificationDataset, ImageDataset, TrainingSampler
from ..data.batch_transforms import BatchTransform
from ..data.mapper import seeded
from .catalogue import check
from .report import Broken, NotApplicable
from .subject import Subject

HEIGHT, WIDTH = 96, 128
RECTANGLE = (20, 28, 68, 58)
SEEDS = range(6)
TOLERANCE = 3.0
"""Pixels between a box and what it was drawn around, for resizing blurs edges."""


def _sample(boxes: Tensor) -> dict[str, Any]:
    """A dark image with a bright rectangle, as the mapper hands it to transforms."""
    image = torch.full((3, HEIGHT, WIDTH), 30, dtype=torch.uint8)
    x1, y1, x2, y2 = RECTANGLE
    image[:, y1:y2, x1:x2] = 220
    return {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH)),  # type: ignore[call-overload]
        "labels": torch.arange(len(boxes)),
    }


def _box() -> Tensor:
    return torch.tensor([RECTANGLE], dtype=torch.float32)


def _apply(transform: Callable[[Any], Any], sample: Any, seed: int) -> Any:
    with seeded(seed, 0):
        return transform(sample)


def _seen(image: Tensor) -> Tensor | None:
    """The box around what is unlike the border, None if that is not one clear thing."""
    grey = image.as_subclass(Tensor).float().mean(dim=0)
    edge = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    apart = (grey - edge.median()).abs()
    if float(apart.max()) < 20 or float((edge - edge.median()).abs().max()) > 5:
        return None
    rows, columns = (apart > apart.max() / 2).nonzero().unbind(dim=1)
    left, top = int(columns.min()), int(rows.min())
    return torch.tensor([left, top, int(columns.max()) + 1, int(rows.max()) + 1]).float()


@check("transform")
def boxes_follow_the_image(subject: Subject) -> None:
    """What a box was drawn around stays within it."""
    transform, compared = subject.build(), 0
    for seed in SEEDS:
        out = _apply(transform, _sample(_box()), seed)
        seen = _seen(out["image"])
        if seen is None or len(out["boxes"]) == 0:
            continue
        compared += 1
        found = out["boxes"].as_subclass(Tensor)[0].float()
        beyond = torch.cat([found[:2] - seen[:2], seen[2:] - found[2:]])
        if float(beyond.max()) > TOLERANCE:
            raise Broken(
                f"with seed {seed} the object is at x1, y1, x2, y2 {seen.tolist()} of an image of "
                f"{tuple(out['image'].shape[-2:])}, and its box says "
                f"{[round(value, 1) for value in found.tolist()]}"
            )
    if not compared:
        raise NotApplicable("the object cannot be told from what is around it afterwards")


@check("transform")
def a_sample_keeps_its_form(subject: Subject) -> None:
    """An image stays (3, h, w) with as many boxes as labels, also where there is no box."""
    transform = subject.build()
    for boxes in (_box(), torch.zeros(0, 4), _box().repeat(3, 1)):
        for seed in SEEDS[:3]:
            out = _apply(transform, _sample(boxes), seed)
            if not isinstance(out, dict) or {"image", "boxes", "labels"} - {*out}:
                raise Broken(f"a sample of image, boxes, labels comes out as {out!r:.60}")
            image = out["image"]
            if image.ndim != 3 or len(image) != 3:
                raise Broken(f"an image (3, {HEIGHT}, {WIDTH}) comes out as {tuple(image.shape)}")
            if len(out["boxes"]) != len(out["labels"]):
                raise Broken(f"{len(out['boxes'])} boxes come out with {len(out['labels'])} labels")


@check("transform")
def a_transform_is_a_function_of_the_seed(subject: Subject) -> None:
    """The same seed gives the same sample; the random numbers are torch's, numpy's or Python's.

    A generator of its own would make a resumed run another one.
    """
    transform = subject.build()
    for seed in SEEDS[:3]:
        first = _apply(transform, _sample(_box()), seed)
        second = _apply(transform, _sample(_box()), seed)
        for name in ("image", "boxes"):
            if first[name].shape != second[name].shape or not torch.equal(
                first[name], second[name]
            ):
                raise Broken(f"with seed {seed} a second call gives another {name}")


@check("transform")
def a_transform_leaves_its_input_alone(subject: Subject) -> None:
    """The sample that went in is not changed in place."""
    transform, sample = subject.build(), _sample(_box())
    before = copy.deepcopy(sample)
    for seed in SEEDS:
        _apply(transform, sample, seed)
        for name, value in before.items():
            if sample[name].shape != value.shape or not torch.equal(sample[name], value):
                raise Broken(f"'{name}' was changed in place")


@check("transform", "dataset")
def it_reaches_the_workers(subject: Subject) -> None:
    """It can be pickled, and so reach the processes that load data."""
    pickle.loads(pickle.dumps(subject.build()))


@check("dataset")
def a_data_set_says_what_it_holds(subject: Subject) -> None:
    """It has images, class names, a name, and one id an image, each once."""
    dataset = subject.build()
    if not len(dataset):
        raise Broken("it has no image")
    if not dataset.class_names or len({*dataset.class_names}) < len(dataset.class_names):
        raise Broken(f"class_names are {dataset.class_names}; each once, at least one")
    if len({*dataset.image_ids}) < len(dataset):
        raise Broken(f"{len(dataset)} images have {len({*dataset.image_ids})} different image_ids")


@check(
    "dataset",
    of=ImageDataset,
    line="(3, H, W) uint8 RGB, ``file_name``, ``image_id``, ``height``, ``width``, and",
)
def samples_fit_what_the_index_says(subject: Subject) -> None:
    """Samples have an image of the size that they say, boxes within it, and known classes."""
    dataset = subject.build()
    for i in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        sample = dataset[i]
        image, size = sample["image"], (int(sample["height"]), int(sample["width"]))
        if tuple(image.shape) != (3, *size) or image.dtype != torch.uint8:
            raise Broken(
                f"image {i} is {tuple(image.shape)} {image.dtype}; its height and width say {size}"
            )
        if isinstance(dataset, ClassificationDataset):
            _check_classes(torch.as_tensor(sample["class"]).reshape(-1), dataset, i)
            continue
        if (int(dataset.heights[i]), int(dataset.widths[i])) != size:
            raise Broken(f"heights and widths say another size of image {i} than {size}")
        boxes, classes = sample["boxes"], sample["classes"]
        if len(boxes) != len(classes):
            raise Broken(f"image {i} has {len(boxes)} boxes and {len(classes)} classes")
        limit = torch.tensor([size[1], size[0]] * 2)
        if ((boxes < 0) | (boxes > limit)).any() or not (boxes[:, 2:] > boxes[:, :2]).all():
            raise Broken(f"a box of image {i} is not within it, or has no area: {boxes.tolist()}")
        _check_classes(classes, dataset, i)


def _check_classes(classes: Tensor, dataset: ImageDataset, image: int) -> None:
    count = len(dataset.class_names)
    if classes.dtype != torch.int64 or ((classes < 0) | (classes >= count)).any():
        raise Broken(
            f"image {image} has classes {classes.tolist()} ({classes.dtype}); int64 from 0 to "
            f"{count - 1} was expected"
        )


@check("dataset")
def reading_twice_gives_the_same(subject: Subject) -> None:
    """Image i is the same each time, whatever was read before; beyond the last is an IndexError."""
    dataset = subject.build()
    first, last = dataset[0]["image"], dataset[len(dataset) - 1]["image"]
    if not torch.equal(dataset[0]["image"], first):
        raise Broken("image 0 is another at the second reading; randomness belongs to transforms")
    if not torch.equal(subject.build()[len(dataset) - 1]["image"], last):
        raise Broken("the last image of a second build is another")
    try:
        dataset[len(dataset)]
    except IndexError:
        return
    raise Broken(f"image {len(dataset)} of {len(dataset)} should be an IndexError")


def _sampler(subject: Subject) -> Any:
    images = np.arange(3, 43)
    classes = [np.array([i % 3]) for i in range(len(images))]
    return subject.build(images=images, image_classes=classes, seed=7)


@check("sampler", of=TrainingSampler, line="a function of the seed and the epoch.")
def an_epoch_is_a_function_of_seed_and_number(subject: Subject) -> None:
    """An epoch is the same whatever came before it, and holds images to train on."""
    first, second = _sampler(subject), _sampler(subject)
    orders = [first.epoch(epoch) for epoch in range(4)]
    for epoch in (3, 1, 1):
        if not np.array_equal(second.epoch(epoch), orders[epoch]):
            raise Broken(f"epoch {epoch} is another where other epochs came before it")
    wrong = {*orders[0].tolist()} - {*range(3, 43)}
    if wrong or not len(orders[0]):
        raise Broken(f"epoch 0 holds {sorted(wrong)[:5] or 'nothing'}; images are 3 to 42")


@check("sampler", of=TrainingSampler, line="How many images an epoch has.")
def an_epochs_size_is_known(subject: Subject) -> None:
    """``epoch_size`` is the length of the epoch."""
    sampler = _sampler(subject)
    for epoch in range(4):
        if sampler.epoch_size(epoch) != len(sampler.epoch(epoch)):
            raise Broken(
                f"epoch {epoch} has {len(sampler.epoch(epoch))} images, epoch_size says "
                f"{sampler.epoch_size(epoch)}"
            )


@check(
    "batch transform",
    of=BatchTransform,
    line="Map images and class probabilities to others; draws from torch's random numbers.",
)
def a_batch_keeps_its_form(subject: Subject) -> None:
    """Images and probabilities keep their shapes, probabilities add up to 1, the seed decides."""
    transform = subject.build()
    generator = torch.Generator().manual_seed(0)
    for count in (1, 4):
        images = 255 * torch.rand(count, 3, 24, 32, generator=generator)
        probs = torch.eye(subject.around.num_classes)[:count]
        before = images.clone(), probs.clone()
        first, second = (_apply(lambda pair: transform(*pair), (images, probs), 3) for _ in "ab")
        for name, given, then, found, again in zip(
            ("images", "probabilities"), (images, probs), before, first, second, strict=True
        ):
            if found.shape != then.shape:
                raise Broken(f"{name} {tuple(then.shape)} come out as {tuple(found.shape)}")
            if not torch.equal(found, again):
                raise Broken(f"with the same seed a second call gives other {name}")
            if not torch.equal(given, then):
                raise Broken(f"{name} were changed in place")
        if not torch.allclose(first[1].sum(dim=1), torch.ones(count), atol=1e-4):
            raise Broken(f"probabilities add up to {first[1].sum(dim=1).tolist()}")
