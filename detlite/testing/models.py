"""Checks of a part within a whole model, and of meta-archs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..modeling import META_ARCH_REGISTRY, MetaArch
from ..modeling.interfaces import BoxLoss, ClassificationLoss
from ..registry import Block
from ..structures import BatchShare, Instances
from .blocks import complete_block, small_detector
from .catalogue import check
from .losses import numbers_of
from .report import Broken, NotApplicable
from .subject import IMAGE_SIZE, Size, Subject, fixed_random_state, random_boxes

PARTS = {
    "backbone": "backbone",
    "neck": "neck",
    "anchor generator": "anchor_generator",
    "head": "head",
    "matcher": "matcher",
    "box coder": "box_coder",
    "loss normalizer": "loss_normalizer",
    "preprocessor": "preprocessor",
    "postprocessor": "postprocessor",
}
"""Kinds of parts, and where in a RetinaNet's block they stand."""


def make_batch(
    num_classes: int, sizes: Sequence[Size] = (IMAGE_SIZE, (62, 75))
) -> list[dict[str, Any]]:
    """A batch: the first image with two objects, the last without one; a class for each image."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for i, size in enumerate(sizes):
        count = 0 if i == len(sizes) - 1 and i else 2
        batch.append(
            {
                "image": torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator),
                "instances": Instances(
                    size,
                    gt_boxes=random_boxes(count, size, seed=i),
                    gt_classes=torch.arange(count) % num_classes,
                ),
                "gt_class": torch.tensor(i % num_classes),
                "height": size[0],
                "width": size[1],
                "image_id": i,
                "file_name": f"{i}.png",
            }
        )
    return batch


def _model_around(subject: Subject) -> MetaArch:
    """A small RetinaNet with the component in its place."""
    key = PARTS.get(subject.kind, "")
    if subject.kind == "loss":
        loss = subject.build()
        key = "cls_loss" if isinstance(loss, ClassificationLoss) else "box_loss"
        if not isinstance(loss, ClassificationLoss | BoxLoss):
            raise NotApplicable("for losses of a detector")
        if isinstance(loss, BoxLoss) and numbers_of(loss) != 4:
            raise NotApplicable("it goes with a box coder of its own")
    if subject.kind == "box coder" and subject.build().code_size != 4:
        raise NotApplicable("it goes with a loss of its own")
    block = complete_block(META_ARCH_REGISTRY, small_detector(**{key: subject.block}))
    with fixed_random_state(0):
        model: MetaArch = META_ARCH_REGISTRY.build(block, num_classes=subject.around.num_classes)
    return model


@check(*PARTS, "loss")
def it_trains_and_detects_in_a_model(subject: Subject) -> None:
    """In a small RetinaNet it trains, also on images without objects, and detects."""
    _try_model(_model_around(subject), subject.around.num_classes)


def _try_model(model: MetaArch, num_classes: int) -> None:
    everything = make_batch(num_classes)
    empty = 2 * everything[1:]
    model.train()
    for batch in (everything, empty):
        losses = _losses(model(batch))
        total = sum(losses.values())
        assert isinstance(total, Tensor)
        model.zero_grad()
        total.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise Broken(f"the gradient of {name} is not finite")
    model.eval()
    with torch.no_grad():
        outputs = model(everything)
    _check_outputs(outputs, everything, num_classes)


def _losses(output: Any) -> dict[str, Tensor]:
    if not isinstance(output, dict):
        raise Broken(f"in training forward gives {type(output).__name__}; a dict was expected")
    losses = {name: value for name, value in output.items() if name.startswith("loss")}
    if not losses:
        raise Broken(f"in training forward gives {', '.join(output)}; none is named loss*")
    for name, value in output.items():
        if not isinstance(value, Tensor) or value.ndim:
            raise Broken(f"'{name}' must be a scalar tensor, got {value!r:.60}")
        if not torch.isfinite(value):
            raise Broken(f"'{name}' is {float(value)}")
    return losses


def _check_outputs(outputs: Any, batch: Sequence[Any], num_classes: int) -> None:
    if not isinstance(outputs, list) or len(outputs) != len(batch):
        raise Broken(
            f"{len(batch)} images give {outputs!r:.60}; a list of a dict each was expected"
        )
    for i, output in enumerate(outputs):
        found = output.get("instances")
        if found is None:
            continue
        missing = [n for n in ("pred_boxes", "scores", "pred_classes") if not found.has(n)]
        if missing:
            raise Broken(f"instances of image {i} have no {', '.join(missing)}")
        classes = found.pred_classes
        if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= num_classes):
            raise Broken(f"classes of image {i} are not within 0 to {num_classes - 1}")


@check(
    "meta-arch", of=MetaArch, line="In training a dict of scalars, those named ``loss*`` are summed"
)
def a_model_trains_and_predicts(subject: Subject) -> None:
    """It gives losses in training, also for empty images, and a dict an image in evaluation."""
    _try_model(subject.build(), subject.around.num_classes)


@check("meta-arch", of=MetaArch, line="one dict")
def a_model_reports_in_the_size_asked_for(subject: Subject) -> None:
    """Boxes are scaled to the "height" and "width" of their sample."""
    model = subject.build().eval()
    batch = make_batch(subject.around.num_classes)[:1]
    doubled = [{**batch[0], "height": 128, "width": 192}]
    with torch.no_grad():
        plain, larger = model(batch)[0], model(doubled)[0]
    if "instances" not in plain:
        raise NotApplicable("it detects nothing")
    first, second = plain["instances"], larger["instances"]
    if tuple(second.image_size) != (128, 192):
        raise Broken(f"image_size is {second.image_size} where (128, 192) was asked for")
    if not torch.allclose(first.pred_boxes * 2, second.pred_boxes, atol=0.1):
        raise Broken("twice the size does not give boxes of twice the size")


@check("meta-arch", of=MetaArch, line="A step may compute its batch in parts")
def the_parts_of_a_batch_sum_to_the_whole(subject: Subject) -> None:
    """``count_targets``, ``loss_weights`` and ``forward`` with shares add up to the whole batch."""
    model = subject.build().train()
    for module in model.modules():  # statistics of the batch see a part at a time
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
            module.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batch = make_batch(subject.around.num_classes)
    whole = model(batch)
    canvas = (64, 96)
    model.load_state_dict(state)
    counts = torch.cat([model.count_targets([sample], canvas) for sample in batch])
    weights = model.loss_weights(counts)
    parts = [
        model([sample], BatchShare(canvas, weights[i : i + 1])) for i, sample in enumerate(batch)
    ]
    for name, value in whole.items():
        found = sum(part[name] for part in parts)
        if not torch.allclose(found.float(), value.float(), rtol=1e-3, atol=1e-5):
            raise Broken(
                f"'{name}' is {float(value):.6g} of the whole, {float(found):.6g} of the parts"
            )


@check("meta-arch")
def a_loaded_model_predicts_the_same(subject: Subject) -> None:
    """A second build that loads ``state_dict()`` predicts the same."""
    batch = make_batch(subject.around.num_classes)
    first, second = subject.build(weights_seed=0).eval(), subject.build(weights_seed=1).eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        for one, other in zip(first(batch), second(batch), strict=True):
            for name, value in _tensors(one).items():
                if not torch.equal(_tensors(other)[name], value):
                    raise Broken(f"'{name}' differs")


def _tensors(output: Any) -> dict[str, Tensor]:
    fields = output["instances"].get_fields() if "instances" in output else output
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def block_of(config_model: Block, kind: str) -> Block | None:
    """The block of a kind of part in a model's block."""
    block = config_model.get(PARTS.get(kind, ""))
    return block if isinstance(block, Block) else None
