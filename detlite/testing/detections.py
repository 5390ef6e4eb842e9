"""Checks of what lies before the network and behind it: preprocessors, postprocessors."""

import copy

import torch
from torch import Tensor

from ..modeling import ANCHOR_GENERATOR_REGISTRY, Postprocessor, Preprocessor
from ..structures import ImageList
from .catalogue import check
from .report import Broken
from .subject import IMAGE_SIZE, Subject

GRIDS = [(8, 12), (4, 6)]


def _images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((50, 70), (61, 40))
    return [
        torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]


@check("preprocessor", of=Preprocessor, line="to one padded batch on the model's.")
def images_become_one_padded_batch(subject: Subject) -> None:
    """Images of several sizes, uint8 or float32, become one finite float batch with their sizes."""
    preprocessor, images = subject.build(), _images()
    for given in (images, [image.float() for image in images]):
        batch = preprocessor(given)
        if not isinstance(batch, ImageList):
            raise Broken(f"forward gives {type(batch).__name__}; an ImageList was expected")
        if [tuple(size) for size in batch.image_sizes] != [tuple(i.shape[1:]) for i in images]:
            raise Broken(f"image_sizes are {batch.image_sizes} for images of (50, 70) and (61, 40)")
        if not batch.tensor.is_floating_point() or not torch.isfinite(batch.tensor).all():
            raise Broken(f"the batch is {batch.tensor.dtype}, or not finite")
    alone = preprocessor(images[:1], canvas=(61, 70)).tensor[0, :, :50, :70]
    if not torch.allclose(alone, batch.tensor[0, :, :50, :70]):
        raise Broken("an image's pixels depend on the other images of the batch")


@check("preprocessor", of=Preprocessor, line="(height, width) to pad to, then rounded up")
def a_canvas_is_padded_to(subject: Subject) -> None:
    """With a canvas the batch has the size that ``padded_size`` says."""
    preprocessor = subject.build()
    for canvas in ((61, 70), (100, 133)):
        found = tuple(preprocessor(_images(), canvas=canvas).tensor.shape[-2:])
        expected = tuple(preprocessor.padded_size(canvas))
        if found != expected:
            raise Broken(f"canvas {canvas} is padded to {found}; padded_size says {expected}")
        if any(size % preprocessor.size_divisor for size in found):
            raise Broken(f"{found} is no multiple of size_divisor {preprocessor.size_divisor}")


@check("preprocessor")
def a_preprocessor_leaves_images_alone(subject: Subject) -> None:
    """Images are not changed in place: hooks draw them later."""
    images = [image.float() for image in _images()]
    before = copy.deepcopy(images)
    subject.build()(images)
    if not all(torch.equal(now, then) for now, then in zip(images, before, strict=True)):
        raise Broken("an image was changed in place")


def _detect(subject: Subject, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    block = {"name": "GridAnchorGenerator", "scales_per_octave": 1, "aspect_ratios": [1.0]}
    anchors = ANCHOR_GENERATOR_REGISTRY.build(block, strides=[8, 16])(GRIDS, IMAGE_SIZE)
    coder = subject.around.make_box_coder()
    rows = sum(len(level) for level in anchors)
    logits = scale * torch.randn(2, rows, subject.around.num_classes, generator=generator)
    deltas = torch.randn(2, rows, coder.code_size, generator=generator)
    sizes = torch.tensor([IMAGE_SIZE, (50, 70)])
    output: tuple[Tensor, Tensor, Tensor, Tensor] = subject.build()(
        logits if scale else logits - 50, deltas, anchors, sizes, coder
    )
    return output


@check(
    "postprocessor",
    of=Postprocessor,
    line="Detections in tensors whose shape does not depend on the data.",
)
def detections_have_fixed_shapes(subject: Subject) -> None:
    """Boxes are (N, D, 4), scores and classes (N, D), counts (N,), whatever is found."""
    shapes = []
    for scale in (3.0, 0.0):
        output = _detect(subject, scale)
        shapes.append([tuple(value.shape) for value in output])
        depth = output[1].shape[-1]
        if shapes[-1] != [(2, depth, 4), (2, depth), (2, depth), (2,)]:
            raise Broken(f"shapes are {shapes[-1]}; expected (N, D, 4), (N, D), (N, D), (N,)")
        if output[2].dtype != torch.int64:
            raise Broken(f"classes are {output[2].dtype}; expected torch.int64")
    if shapes[0] != shapes[1]:
        raise Broken(f"shapes are {shapes[0]} with many detections and {shapes[1]} with none")


@check(
    "postprocessor", of=Postprocessor, line="classes (N, D) int64 by falling score, and the number"
)
def detections_are_sorted_and_within_the_image(subject: Subject) -> None:
    """Scores fall and lie in 0 to 1, classes in 0 to K - 1, boxes within the image.

    Padding is no part of it.
    """
    boxes, scores, classes, counts = _detect(subject)
    for i, (height, width) in enumerate((IMAGE_SIZE, (50, 70))):
        count = int(counts[i])
        found, kept = scores[i, :count], boxes[i, :count]
        if not (found[:-1] >= found[1:]).all():
            raise Broken(f"scores of image {i} do not fall: {found[:8].tolist()}")
        if count and (float(found.min()) < 0 or float(found.max()) > 1):
            raise Broken(
                f"scores of image {i} go from {float(found.min())} to {float(found.max())}"
            )
        if ((classes[i, :count] < 0) | (classes[i, :count] >= subject.around.num_classes)).any():
            raise Broken(f"a class of image {i} is not in 0 to {subject.around.num_classes - 1}")
        limit = torch.tensor([width, height, width, height])
        if count and ((kept < 0) | (kept > limit)).any():
            raise Broken(f"a box of image {i} reaches beyond its {height} x {width} pixels")
