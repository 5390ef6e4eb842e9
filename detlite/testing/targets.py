"""Checks of what decides where objects are learnt: anchors, matchers, box coders."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..modeling import ANCHOR_GENERATOR_REGISTRY, AnchorGenerator, BoxCoder, Matcher
from .catalogue import check
from .report import Broken, NotApplicable
from .subject import IMAGE_SIZE, Subject, random_boxes

GRIDS = [(8, 12), (4, 6), (2, 3)]
"""Cells of levels of strides 8, 16 and 32 for images of ``IMAGE_SIZE``."""


def _scene() -> tuple[list[Tensor], Tensor, list[int]]:
    """Ground truths of four images, one of them empty, and anchors of three levels."""
    block = {"name": "GridAnchorGenerator", "scales_per_octave": 1, "offset": 0.5}
    generator = ANCHOR_GENERATOR_REGISTRY.build(block, strides=[8, 16, 32])
    anchors = generator(GRIDS, IMAGE_SIZE)
    small, whole = torch.tensor([[3.0, 3.0, 6.0, 6.0]]), torch.tensor([[0.0, 0.0, 96.0, 64.0]])
    gt_boxes = [random_boxes(4), torch.zeros(0, 4), random_boxes(1, seed=1)]
    gt_boxes.append(torch.cat([small, whole]))
    return gt_boxes, torch.cat(anchors), [len(level) for level in anchors]


@check("matcher", of=Matcher, line="Index of the image's ground truth (N, R) int64")
def matches_have_their_shapes_and_types(subject: Subject) -> None:
    """Indices are (N, R) int64, labels (N, R) int8 of 1, 0 and -1."""
    gt_boxes, anchors, sizes = _scene()
    indices, labels = subject.build()(gt_boxes, anchors, sizes)
    for name, value, dtype in (("indices", indices, torch.int64), ("labels", labels, torch.int8)):
        if value.shape != (len(gt_boxes), len(anchors)) or value.dtype != dtype:
            raise Broken(
                f"{name} have shape {tuple(value.shape)} and type {value.dtype}; expected "
                f"{(len(gt_boxes), len(anchors))} and {dtype}"
            )
    wrong = {*labels.unique().tolist()} - {-1, 0, 1}
    if wrong:
        raise Broken(f"labels hold {sorted(wrong)}; 1 foreground, 0 background, -1 ignored")


@check(
    "matcher",
    of=Matcher,
    line="Index of the image's ground truth (N, R) int64, 0 where it has none",
)
def indices_name_ground_truths(subject: Subject) -> None:
    """Indices lie within the image's ground truths; 0 where there is none."""
    gt_boxes, anchors, sizes = _scene()
    indices, _ = subject.build()(gt_boxes, anchors, sizes)
    for image, (boxes, found) in enumerate(zip(gt_boxes, indices, strict=True)):
        low, high = int(found.min()), int(found.max())
        if low < 0 or high > max(len(boxes) - 1, 0):
            raise Broken(
                f"image {image} has {len(boxes)} ground truths, and its indices go from {low} to "
                f"{high}"
            )


@check("matcher", of=Matcher, line="(G, 4) of each image; G may be 0.")
def an_empty_image_has_no_foreground(subject: Subject) -> None:
    """An image without ground truth has no foreground, whatever the others have."""
    _, anchors, sizes = _scene()
    none = torch.zeros(0, 4)
    for gt_boxes in ([none], [none, none], [random_boxes(3), none]):
        _, labels = subject.build()(gt_boxes, anchors, sizes)
        count = int((labels[-1] == 1).sum())
        if count:
            raise Broken(f"{count} anchors of an image without ground truth are foreground")


@check("matcher", of=Matcher, line="1 foreground, 0 background, -1 ignored.")
def an_object_gets_an_anchor(subject: Subject) -> None:
    """An object that lies exactly on an anchor has foreground, with its index."""
    _, anchors, sizes = _scene()
    middle = anchors[len(anchors) // 3][None]
    indices, labels = subject.build()([torch.cat([middle, middle + 1000])], anchors, sizes)
    if not (labels[0] == 1).any():
        raise Broken(
            f"no anchor is foreground for the object {middle[0].tolist()}, itself an anchor"
        )
    if not ((labels[0] == 1) & (indices[0] == 0)).any():
        raise Broken("no foreground anchor has the index of the object that lies on one")


@check("matcher", of=Matcher, line="Match a batch.")
def a_batch_is_matched_image_by_image(subject: Subject) -> None:
    """What an image's anchors learn does not depend on the batch; two calls give the same."""
    gt_boxes, anchors, sizes = _scene()
    matcher = subject.build()
    together = matcher(gt_boxes, anchors, sizes)
    for name, again, first in zip(
        ("indices", "labels"), matcher(gt_boxes, anchors, sizes), together, strict=True
    ):
        if not torch.equal(again, first):
            raise Broken(f"a second call gives other {name}")
    for image, boxes in enumerate(gt_boxes):
        alone = matcher([boxes], anchors, sizes)
        for name, one, all_of_them in zip(("indices", "labels"), alone, together, strict=True):
            if not torch.equal(one[0], all_of_them[image]):
                raise Broken(f"image {image} alone has other {name} than within the batch")


@check("matcher", of=Matcher, line="(R, 4) of all levels, the same for all images.")
def a_matcher_leaves_its_input_alone(subject: Subject) -> None:
    """Boxes and anchors are not changed in place."""
    gt_boxes, anchors, sizes = _scene()
    before = copy.deepcopy((gt_boxes, anchors))
    subject.build()(gt_boxes, anchors, sizes)
    for now, then in zip([*gt_boxes, anchors], [*before[0], before[1]], strict=True):
        if not torch.equal(now, then):
            raise Broken(f"a tensor of shape {tuple(then.shape)} was changed in place")


@check("box coder", of=BoxCoder, line="that lead from anchors (..., 4) to boxes (..., 4).")
def decoding_undoes_encoding(subject: Subject) -> None:
    """``decode(encode(boxes, anchors), anchors)`` is the boxes."""
    coder = subject.build()
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    encoded = coder.encode(boxes, anchors)
    if encoded.shape != (50, 4):
        raise Broken(f"encode gives shape {tuple(encoded.shape)} for 50 boxes; expected (50, 4)")
    if coder.code_size != 4:
        raise NotApplicable(f"code_size is {coder.code_size}: encode has no inverse")
    off = (coder.decode(encoded, anchors) - boxes).abs().max()
    if not float(off) < 0.01:
        raise Broken(f"boxes come back up to {float(off):.3g} pixels away")


@check("box coder", of=BoxCoder, line="Numbers that a head predicts for a box, B.")
def boxes_are_decoded_from_code_size_numbers(subject: Subject) -> None:
    """``decode`` takes ``code_size`` numbers a box, with any dimensions before, and gives 4."""
    coder = subject.build()
    for leading in ((7,), (2, 7), (0,)):
        anchors = random_boxes(leading[-1]).expand(*leading, 4)
        boxes = coder.decode(torch.zeros(*leading, coder.code_size), anchors)
        if tuple(boxes.shape) != (*leading, 4):
            raise Broken(
                f"deltas {(*leading, coder.code_size)} give boxes {tuple(boxes.shape)}; expected "
                f"{(*leading, 4)}"
            )


@check("box coder", of=BoxCoder, line="lead to; not clipped to the image.")
def large_deltas_give_finite_boxes(subject: Subject) -> None:
    """Deltas that a network may well predict at its first steps, up to 10,000, stay finite."""
    coder = subject.build()
    for value in (-1e4, -50.0, 50.0, 1e4):
        deltas = torch.full((3, coder.code_size), value)
        boxes = coder.decode(deltas, random_boxes(3))
        if not torch.isfinite(boxes).all():
            raise Broken(f"deltas of {value:g} give {boxes[0].tolist()}; clamp before exp()")


@check("anchor generator", of=AnchorGenerator, line="Anchors per cell, A.")
def there_are_num_anchors_in_a_cell(subject: Subject) -> None:
    """Each level has ``H * W * num_anchors`` anchors (x1, y1, x2, y2) of some area."""
    generator = subject.build()
    for (height, width), level in zip(GRIDS, generator(GRIDS, IMAGE_SIZE), strict=True):
        expected = (height * width * generator.num_anchors, 4)
        if tuple(level.shape) != expected:
            raise Broken(
                f"a level of {height} x {width} cells has anchors {tuple(level.shape)}; "
                f"num_anchors {generator.num_anchors} makes it {expected}"
            )
        if not (level[:, 2:] > level[:, :2]).all():
            raise Broken("an anchor has no area, or its corners are not x1, y1, x2, y2")


@check("anchor generator", of=AnchorGenerator, line="cells row by row, a cell's anchors together.")
def anchors_go_row_by_row(subject: Subject) -> None:
    """A cell's anchors come together, cells to the right first, then the row below."""
    generator = subject.build()
    strides = subject.computed()["strides"]
    for (height, width), stride, level in zip(
        GRIDS, strides, generator(GRIDS, IMAGE_SIZE), strict=True
    ):
        centres = (level[:, :2] + level[:, 2:]) / 2
        means = centres.view(height, width, generator.num_anchors, 2).mean(dim=2)
        step = {"right": means[:, 1:] - means[:, :-1], "below": means[1:] - means[:-1]}
        for direction, move in (("right", [stride, 0]), ("below", [0, stride])):
            found = step[direction].flatten(0, 1)
            if not torch.allclose(found, torch.tensor(move).to(found).expand_as(found), atol=1e-2):
                raise Broken(
                    f"a cell {direction} is at (dx, dy) {_rounded(found[0])} on a level of stride "
                    f"{stride}; expected {move}"
                )


@check("anchor generator")
def anchors_follow_the_device(subject: Subject) -> None:
    """Anchors are made on the device that the module was moved to."""
    levels = subject.build().to("meta")(GRIDS, IMAGE_SIZE)
    devices = {str(level.device) for level in levels}
    if devices != {"meta"}:
        raise Broken(f"moved to another device it makes anchors on {', '.join(devices)}")


def _rounded(values: Tensor) -> Sequence[float]:
    return [round(float(value), 2) for value in values]
