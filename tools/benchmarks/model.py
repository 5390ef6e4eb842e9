"""RetinaNet R50-FPN beside torchvision's: inference and a training step."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn

from detlite import Instances, build_model, load_config

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = CONFIGS / "retinanet" / "retinanet_r50_fpn_coco_torchvision_v1.yaml"


def run(repeat: int) -> list[dict[str, object]]:
    """Seconds of our RetinaNet and of torchvision's on the same images, in turn."""
    torch.manual_seed(0)
    overrides = ["model.weights=''", "model.backbone.freeze_at=0", "data.train=[]", "data.test=[]"]
    config = load_config(str(CONFIG), overrides)
    ours = build_model(config, [str(i) for i in range(80)])
    peer = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=80, min_size=448, max_size=1333
    ).to(next(ours.parameters()).device)
    images = torch.randint(256, (2, 3, 448, 640), dtype=torch.uint8)
    boxes = torch.tensor([[20.0, 20, 200, 220], [100, 50, 400, 300]])
    classes = torch.tensor([3, 7])
    batch = [
        {"image": x, "instances": Instances((448, 640), gt_boxes=boxes, gt_classes=classes)}
        for x in images
    ]
    device = next(ours.parameters()).device
    floats = [image.to(device) / 255 for image in images]
    targets = [{"boxes": boxes.to(device), "labels": classes.to(device)} for _ in images]
    rows = []
    for work, run_ours, run_peer in (
        ("inference, 2 x 448 x 640", _inference(ours, batch), _inference(peer, floats)),
        ("training step, 2 x 448 x 640", _step(ours, batch), _step(peer, floats, targets)),
    ):
        times = [(_seconds(run_ours), _seconds(run_peer)) for _ in range(repeat + 1)][1:]
        rows.append(
            {
                "work": work,
                "detlite s": statistics.median(a for a, _ in times),
                "torchvision s": statistics.median(b for _, b in times),
                "ratio torchvision / detlite": statistics.median(b / a for a, b in times),
            }
        )
    return rows


def _inference(model: torch.nn.Module, *inputs: object) -> Callable[[], None]:
    def run() -> None:
        model.eval()
        with torch.inference_mode():
            model(*inputs)

    return run


def _step(model: torch.nn.Module, *inputs: object) -> Callable[[], None]:
    def run() -> None:
        model.train()
        losses: dict[str, Tensor] = model(*inputs)
        sum(v for k, v in losses.items() if k != "num_positives").backward()  # type: ignore[union-attr]
        model.zero_grad()

    return run


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
