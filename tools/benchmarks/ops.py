"""The native ops beside torchvision's: time, the ratio, and whether the results are the same."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import Matcher

from detlite.ops import batched_nms, box_iou, match_anchors, nms, sigmoid_focal_loss

from .box_sets import ADVERSARIAL, adversarial, scattered
from .memory import peak_mebibytes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Work = Callable[[], Any]
Row = dict[str, object]


def run(repeat: int) -> list[Row]:
    """Rows of a table; times in milliseconds, a median of pairs that are run in turn."""
    rows = [nms_row(n, repeat) for n in (1_000, 5_000, 20_000, 100_000)]
    rows.append(adversarial_row(repeat))
    rows += [batched_nms_row(n, repeat) for n in (5_000, 20_000)]
    rows += box_iou_rows(repeat)
    rows.append(matching_row(repeat))
    rows.append(focal_row(repeat))
    return rows


def nms_row(num_boxes: int, repeat: int) -> Row:
    """Scattered boxes of one class."""
    boxes, scores = scattered(num_boxes).to(DEVICE), draw(num_boxes)
    # One comparison of 100,000 boxes takes torchvision a quarter of a minute.
    return row(
        f"nms, {num_boxes:,} scattered boxes",
        lambda: nms(boxes, scores, 0.5),
        lambda: torchvision.ops.nms(boxes, scores, 0.5),
        repeat if num_boxes < 100_000 else 1,
    )


def adversarial_row(repeat: int) -> Row:
    """The set, size and threshold of the lowest ratio among all adversarial ones."""
    rows = []
    for name in ADVERSARIAL:
        for num_boxes in (100, 1_000, 5_000, 20_000):
            boxes, scores = adversarial(name, num_boxes).float().to(DEVICE), draw(num_boxes)
            for threshold in (0.3, 0.5, 0.7, 0.95):
                rows.append(
                    row(
                        f"nms, worst adversarial set: {name}, {num_boxes:,}, t {threshold}",
                        lambda b=boxes, s=scores, t=threshold: nms(b, s, t),
                        lambda b=boxes, s=scores, t=threshold: torchvision.ops.nms(b, s, t),
                        repeat,
                    )
                )
    worst = min(rows, key=lambda each: float(each["ratio"]))  # type: ignore[arg-type]
    different = [each["work"] for each in rows if each["result"] != "same"]
    return worst | {"result": f"same in all {len(rows)}" if not different else str(different)}


def batched_nms_row(num_boxes: int, repeat: int) -> Row:
    """80 classes, compared with torchvision's own way and, for the result, class by class."""
    boxes, scores = scattered(num_boxes).to(DEVICE), draw(num_boxes)
    classes = (draw(num_boxes, 1) * 80).long()
    kept = [
        members[torchvision.ops.nms(boxes[members], scores[members], 0.5)]
        for members in ((classes == k).nonzero().flatten() for k in range(80))
    ]
    expected = torch.cat(kept).sort().values
    expected = expected[scores[expected].argsort(stable=True, descending=True)]
    return row(
        f"batched_nms, {num_boxes:,} boxes, 80 classes",
        lambda: batched_nms(boxes, scores, classes, 0.5),
        lambda: torchvision.ops.batched_nms(boxes, scores, classes, 0.5),
        repeat,
        # torchvision moves the classes apart in the plane, which rounds the boxes.
        same=lambda ours, _: torch.equal(ours, expected),
    )


def box_iou_rows(repeat: int) -> list[Row]:
    """Beside torchvision, and beside writing as many numbers."""
    boxes1, boxes2 = scattered(1_000).to(DEVICE), scattered(10_000, 1).to(DEVICE)

    def fill() -> Tensor:
        return torch.empty(1_000, 10_000, device=DEVICE).fill_(1)

    def ours() -> Tensor:
        return box_iou(boxes1, boxes2)

    peer = row(
        "box_iou, 1,000 x 10,000",
        ours,
        lambda: torchvision.ops.box_iou(boxes1, boxes2),
        repeat,
        same=lambda a, b: torch.equal(a, b),
    )
    filling = row("box_iou beside filling its output", ours, fill, repeat, same=lambda *_: True)
    return [peer, filling | {"peer": "Tensor.fill_", "result": "-"}]


def matching_row(repeat: int) -> Row:
    """50 ground truths and 200,000 anchors, with the low-quality rule."""
    gt_boxes = scattered(50).to(DEVICE)
    anchors = (scattered(200_000, 1) / 60).to(DEVICE)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

    def ours() -> tuple[Tensor, Tensor]:
        return match_anchors(gt_boxes, anchors, 0.5, 0.4, True)

    def same(found: tuple[Tensor, Tensor], expected: Tensor) -> bool:
        matched, labels = found
        return torch.equal(torch.where(labels == 1, matched, labels.long() - 1), expected)

    result = row(
        "match_anchors, 50 x 200,000",
        ours,
        lambda: matcher(torchvision.ops.box_iou(gt_boxes, anchors)),
        repeat,
        same=same,
    )
    return result | {"MiB": peak_mebibytes(ours)}


def focal_row(repeat: int) -> Row:
    """Forward and backward, 200,000 x 80; torchvision gets its one-hot targets for nothing."""
    logits = (torch.randn(200_000, 80, generator=torch.Generator().manual_seed(0)) * 2 - 4).to(
        DEVICE
    )
    classes = torch.where(draw(200_000) < 0.01, (draw(200_000, 1) * 80).long(), 80)
    targets = torch.nn.functional.one_hot(classes, 81)[:, :80].float()
    logits.requires_grad_()

    def ours() -> tuple[Tensor, Tensor]:
        loss = sigmoid_focal_loss(logits, classes, 0.25, 2.0)
        return loss.detach(), torch.autograd.grad(loss, logits)[0]

    def peer() -> tuple[Tensor, Tensor]:
        loss = torchvision.ops.sigmoid_focal_loss(logits, targets, 0.25, 2.0, reduction="sum")
        return loss.detach(), torch.autograd.grad(loss, logits)[0]

    def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
        return all(torch.allclose(x, y, rtol=1e-5, atol=1e-7) for x, y in zip(a, b, strict=True))

    result = row("focal loss, forward and backward, 200,000 x 80", ours, peer, repeat, same=same)
    return result | {"MiB": peak_mebibytes(ours), "peer MiB": peak_mebibytes(peer)}


def draw(count: int, seed: int = 0) -> Tensor:
    """Uniform numbers."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def row(
    work: str,
    ours: Work,
    peer: Work,
    repeat: int,
    same: Callable[[Any, Any], bool] = torch.equal,
) -> Row:
    """Run both in turn; the ratio is the median of the pairs' ratios."""
    result = "same" if same(ours(), peer()) else "DIFFERENT"
    times = [(seconds(ours), seconds(peer)) for _ in range(repeat)]
    return {
        "work": work,
        "peer": "torchvision",
        "detlite ms": 1e3 * statistics.median(a for a, _ in times),
        "peer ms": 1e3 * statistics.median(b for _, b in times),
        "ratio": statistics.median(b / a for a, b in times),
        "result": result,
    }


def seconds(work: Work) -> float:
    """The mean of as many calls as fit into 5 ms, one at least."""
    start = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - start < 0.005:
        work()
        calls += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls
