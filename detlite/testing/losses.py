"""Checks of losses and of what they are divided by."""

import copy
from typing import Any

import torch
from torch import Tensor

from ..modeling import BoxLoss, ClassificationLoss, LossNormalizer
from ..modeling.interfaces import ImageClassificationLoss, Loss, QualityLoss
from .catalogue import check
from .report import Broken, NotApplicable, OtherKind
from .subject import Subject, random_boxes

ROWS = 40
WIDE = 4 * 17
"""Numbers of a box whose four sides are distributions over 0 to 16."""


def _kind(subject: Subject, wanted: type) -> Any:
    """The loss, if it is of this kind."""
    loss = subject.build()
    if not isinstance(loss, wanted):
        raise OtherKind
    return loss


def _rows(
    subject: Subject, seed: int = 0, rows: int = ROWS, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (R, K), classes (R,) of all sorts, qualities (R,)."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = subject.around.num_classes
    logits = scale * torch.randn(rows, num_classes, generator=generator)
    classes = torch.randint(-1, num_classes + 1, (rows,), generator=generator)
    return logits, classes, torch.rand(rows, generator=generator)


def _sum(loss: Loss, logits: Tensor, classes: Tensor, qualities: Tensor) -> Tensor:
    given = (logits, classes, qualities) if isinstance(loss, QualityLoss) else (logits, classes)
    value: Tensor = loss(*given)
    if not isinstance(value, Tensor) or value.ndim:
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise Broken(f"forward gives {shown}; a scalar was expected, the sum over all anchors")
    return value


@check("loss")
def a_loss_is_of_a_known_kind(subject: Subject) -> None:
    """A loss derives from ClassificationLoss, BoxLoss, or another of the contract's."""
    kinds = (ClassificationLoss, BoxLoss, ImageClassificationLoss)
    if not isinstance(subject.build(), kinds):
        raise Broken(f"it derives from none of {', '.join(kind.__name__ for kind in kinds)}")


@check("loss", of=ClassificationLoss, line="Sum the loss of logits (R, K). The caller normalizes.")
def a_classification_loss_is_a_sum(subject: Subject) -> None:
    """The loss of two sets of anchors is the sum of their losses: no mean, no normalization."""
    loss = _kind(subject, ClassificationLoss)
    first, second = _rows(subject, 0, 15), _rows(subject, 1, 25)
    parts = _sum(loss, *first) + _sum(loss, *second)
    whole = _sum(loss, *(torch.cat(both) for both in zip(first, second, strict=True)))
    if not torch.allclose(whole, parts, rtol=1e-4):
        raise Broken(
            f"15 anchors and 25 others have {float(parts):.6g} together, and {float(whole):.6g} in "
            "one call; a mean? Sum, and leave it to loss_normalizer to divide"
        )


@check("loss", of=ClassificationLoss, line="K background, -1 ignored.")
def ignored_anchors_do_not_count(subject: Subject) -> None:
    """Anchors of class -1 add nothing to the loss and get no gradient."""
    loss = _kind(subject, ClassificationLoss)
    logits, classes, qualities = _rows(subject)
    ignored = classes == -1
    kept = ~ignored
    logits.requires_grad_()
    whole = _sum(loss, logits, classes, qualities)
    without = _sum(loss, logits[kept], classes[kept], qualities[kept])
    if not torch.allclose(whole, without, rtol=1e-4):
        raise Broken(
            f"with {int(ignored.sum())} anchors of class -1 the loss is {float(whole):.6g}, "
            f"without them {float(without):.6g}"
        )
    (gradient,) = torch.autograd.grad(whole, logits)
    if gradient[ignored].any():
        raise Broken("anchors of class -1 get a gradient")
    if not gradient[kept].any():
        raise Broken("no anchor gets a gradient")


@check("loss", of=ClassificationLoss, line="0 to K - 1 the class, K background")
def class_k_is_the_background(subject: Subject) -> None:
    """The loss pulls a class's logit up, and all logits of background (class K) down."""
    loss = _kind(subject, ClassificationLoss)
    background = subject.around.num_classes
    last = background - 1
    logits = torch.zeros(2, background, requires_grad=True)
    total = _sum(loss, logits, torch.tensor([last, background]), torch.ones(2))
    (gradient,) = torch.autograd.grad(total, logits)
    if not float(gradient[0, last]) < 0:
        raise Broken(
            f"for class {last} the gradients are {gradient[0].tolist()}; that of {last} must be < 0"
        )
    if not (gradient[1] >= 0).all() or not gradient[1].any():
        raise Broken(f"for background they are {gradient[1].tolist()}; they must be >= 0")


@check("loss", of=ClassificationLoss, line="logits: (R, K).")
def extreme_logits_and_no_anchors_are_finite(subject: Subject) -> None:
    """Logits of 100 have a finite loss and gradient; no anchor, or none that counts, has 0."""
    loss = _kind(subject, ClassificationLoss)
    for scale in (100.0, 0.0):
        logits, classes, qualities = _rows(subject, scale=scale)
        logits.requires_grad_()
        value = _sum(loss, logits, classes, qualities)
        (gradient,) = torch.autograd.grad(value, logits)
        if not torch.isfinite(value) or not torch.isfinite(gradient).all():
            raise Broken(
                f"logits of about {scale:g}: the loss is {float(value):g}, and "
                f"{int((~torch.isfinite(gradient)).sum())} of its gradients are not finite; use "
                "F.logsigmoid or binary_cross_entropy_with_logits"
            )
    nothing = _sum(loss, *_rows(subject, rows=0))
    all_ignored = _sum(loss, _rows(subject)[0], torch.full((ROWS,), -1), torch.zeros(ROWS))
    if float(nothing.detach()) or float(all_ignored.detach()):
        raise Broken(
            f"no anchor has the loss {float(nothing):g}, ignored ones {float(all_ignored):g}; "
            "both must be 0"
        )


@check("loss", of=BoxLoss, line="Loss (P,) of each predicted box against target (P, 4).")
def a_box_loss_is_one_number_a_box(subject: Subject) -> None:
    """The loss is (P,), each box's by itself, also where P is 0."""
    loss = _kind(subject, BoxLoss)
    predicted, target = _pairs(loss)
    values = loss(predicted, target)
    for found, count in ((values, len(target)), (loss(predicted[:0], target[:0]), 0)):
        if tuple(found.shape) != (count,):
            raise Broken(f"{count} boxes give shape {tuple(found.shape)}; expected ({count},)")
    if not torch.allclose(loss(predicted[3:5], target[3:5]), values[3:5], rtol=1e-4):
        raise Broken("a box's loss depends on the other boxes")


@check("loss", of=BoxLoss, line="Compares places, either as deltas or as boxes.")
def a_box_loss_is_least_where_boxes_agree(subject: Subject) -> None:
    """The loss is nowhere less than where prediction and target agree."""
    loss = _kind(subject, BoxLoss)
    predicted, target = _pairs(loss)
    if predicted.shape[1] != 4:
        raise NotApplicable("predictions are no boxes")
    apart, equal = loss(predicted, target), loss(target, target)
    if not (apart >= equal - 1e-4).all():
        worst = int((apart - equal).argmin())
        raise Broken(
            f"{_rounded(predicted[worst])} has the loss {float(apart[worst]):.4g} against "
            f"{_rounded(target[worst])}, which has {float(equal[worst]):.4g} against itself"
        )


@check("loss", of=BoxLoss, line="finite for every finite input.")
def a_box_loss_is_finite_for_finite_boxes(subject: Subject) -> None:
    """Boxes without area, far apart or equal have a finite loss and a finite gradient."""
    loss = _kind(subject, BoxLoss)
    width = _pairs(loss)[0].shape[1]
    point, box = torch.full((1, width), 7.0), random_boxes(1)
    if width == 4:
        pairs = {
            "equal": (box, box),
            "without area": (point, point),
            "one without area": (point, box),
        }
        pairs["far apart"] = (box, box + 1e4)
        pairs["inverted"] = (box.flip(1), box)
    else:
        pairs = {"zero": (torch.zeros(1, width), box), "equal numbers": (point, box)}
    for name, (predicted, target) in pairs.items():
        predicted = predicted.clone().requires_grad_()
        value = loss(predicted, target)
        (gradient,) = torch.autograd.grad(value.sum(), predicted)
        if not torch.isfinite(value).all() or not torch.isfinite(gradient).all():
            raise Broken(
                f"boxes {name}: the loss is {value.tolist()}, its gradient {gradient.tolist()}"
            )


def _pairs(loss: BoxLoss) -> tuple[Tensor, Tensor]:
    """Predictions and targets, as deltas or as boxes; wider ones where four will not do."""
    if getattr(loss, "compares", None) not in ("deltas", "boxes"):
        raise Broken(
            f"compares must be 'deltas' or 'boxes', got {getattr(loss, 'compares', None)!r}"
        )
    predicted, target = random_boxes(20), random_boxes(20, seed=1)
    if getattr(loss, "compares", None) == "deltas":
        predicted, target = (predicted - 40) / 20, (target - 40) / 20
    numbers = numbers_of(loss)
    if numbers != 4:
        return torch.randn(20, numbers), target.abs()
    return predicted, target


def numbers_of(loss: BoxLoss) -> int:
    """How many numbers say a box in what a loss takes: 4, or a distribution of each side."""
    try:
        loss(torch.ones(2, 4), torch.ones(2, 4))
    except (IndexError, RuntimeError, ValueError):
        try:
            loss(torch.ones(2, WIDE), torch.ones(2, 4))
        except Exception:
            return 4  # whatever is wrong, the checks tell it of the usual numbers
        return WIDE
    return 4


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 2) for value in values]


@check(
    "loss", of=ImageClassificationLoss, line="Loss (N,) of each image. The caller takes the mean."
)
def an_image_classification_loss_is_one_number_an_image(subject: Subject) -> None:
    """The loss is (N,), each image's by itself, finite for large logits."""
    loss = _kind(subject, ImageClassificationLoss)
    num_classes = subject.around.num_classes
    logits = torch.randn(6, num_classes, generator=torch.Generator().manual_seed(0))
    targets = torch.eye(num_classes)[torch.arange(6) % num_classes]
    values = loss(logits, targets)
    if tuple(values.shape) != (6,):
        raise Broken(f"6 images give shape {tuple(values.shape)}; expected (6,)")
    if not torch.allclose(loss(logits[2:3], targets[2:3]), values[2:3], rtol=1e-4):
        raise Broken("an image's loss depends on the other images")
    mixed = loss(100 * logits, 0.3 * targets + 0.7 * targets.roll(1, dims=0))
    if not torch.isfinite(mixed).all():
        raise Broken(f"logits of about 100 and mixed targets have the loss {mixed.tolist()}")
    better = loss(logits + 5 * targets, targets)
    if not (better <= values + 1e-4).all():
        raise Broken(f"a higher logit of the right class has a higher loss: {better.tolist()}")


@check("loss")
def a_loss_leaves_its_input_alone(subject: Subject) -> None:
    """Logits, classes and boxes are not changed in place."""
    loss = subject.build()
    given: tuple[Tensor, ...] = _rows(subject)[: 3 if isinstance(loss, QualityLoss) else 2]
    if isinstance(loss, BoxLoss):
        given = _pairs(loss)
    elif isinstance(loss, ImageClassificationLoss):
        shape = (6, subject.around.num_classes)
        given = torch.randn(shape), torch.rand(shape)
    before = copy.deepcopy(given)
    loss(*given)
    for i, (now, then) in enumerate(zip(given, before, strict=True)):
        if not torch.equal(now, then):
            raise Broken(f"argument {i} of shape {tuple(then.shape)} was changed in place")


@check("loss normalizer", of=LossNormalizer, line="to the weight (N,) of each image's sum.")
def weights_are_one_an_image_and_finite(subject: Subject) -> None:
    """Weights are (N,), finite and positive, also where no image has a foreground anchor."""
    normalizer = subject.build()
    for counts in ([3, 0, 12], [0, 0], [7]):
        weights = normalizer(torch.tensor(counts))
        if tuple(weights.shape) != (len(counts),):
            raise Broken(f"{len(counts)} images give weights {tuple(weights.shape)}")
        if not (torch.isfinite(weights) & (weights > 0)).all():
            raise Broken(f"images with {counts} foreground anchors get weights {weights.tolist()}")


@check("loss normalizer")
def what_a_normalizer_remembers_is_saved(subject: Subject) -> None:
    """What it remembers is in ``state_dict()``, moves in training only, and survives a load."""
    normalizer, counts = subject.build(), torch.tensor([3, 9])
    for many in (5, 50, 500):
        normalizer(torch.tensor([many, many]))
    other = subject.build()
    other.load_state_dict(normalizer.state_dict())
    first, second = (each.eval()(counts) for each in (normalizer, other))
    if not torch.equal(first, second):
        raise Broken(f"weights are {first.tolist()}, those of a loaded one {second.tolist()}")
    if not torch.equal(normalizer(counts), first):
        raise Broken("it moves in evaluation")
