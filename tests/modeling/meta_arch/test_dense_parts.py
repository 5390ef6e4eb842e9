"""Detectors of other parts than RetinaNet's: whole and in parts they learn alike."""

from pathlib import Path

import pytest
import torch

from detlite import load_config
from detlite.engine.parallel import batch_shares
from detlite.modeling import build_meta_arch
from detlite.modeling.postprocessing import joint_logits
from detlite.structures import Instances

ROOT = Path(__file__).parents[3]
CONFIGS = [
    "configs/fcos/fcos_r50_fpn_coco_torchvision.yaml",
    "configs/atss/atss_r50_fpn_1x_coco.yaml",
    "configs/atss/atss_vfl_r50_fpn_1x_coco.yaml",
    "configs/gfl/gfl_r50_fpn_1x_coco.yaml",
    "projects/atss_qfl/atss_qfl_r50_fpn_1x_coco.yaml",
]
SMALL = ["model.backbone.depth=18", "model.neck.out_channels=64", "model.head.num_convs=1"]


def build(path):
    torch.manual_seed(0)
    return build_meta_arch(load_config(ROOT / path, SMALL).model, ["a", "b", "c"]).train()


def draw_batch():
    """Three images, of which the last has no object."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for (height, width), count in (((64, 96), 3), ((96, 80), 5), ((64, 64), 0)):
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2, generator=generator) * 30], 1)
        classes = torch.randint(3, (count,), generator=generator)
        image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        truth = Instances((height, width), gt_boxes=boxes, gt_classes=classes)
        batch.append({"image": image, "instances": truth})
    return batch


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss"))


@pytest.mark.parametrize("path", CONFIGS)
def test_the_parts_of_a_batch_add_up_to_it_and_reach_every_parameter(path):
    model, batch = build(path), draw_batch()
    whole = model(batch)
    total(whole).backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    assert [name for name, grad in expected.items() if not grad.any()] == []
    model.zero_grad()
    parts = [batch[0::2], batch[1::2]]
    summed = {name: torch.zeros_like(value) for name, value in whole.items()}
    for part, share in zip(parts, batch_shares(model, parts, torch.device("cpu")), strict=True):
        losses = model(part, share=share)
        total(losses).backward()
        summed = {name: summed[name] + value.detach() for name, value in losses.items()}
    assert whole["num_positives"] > 8
    for name, value in whole.items():
        torch.testing.assert_close(summed[name], value.detach(), rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            difference = (parameter.grad - expected[name]).norm() / expected[name].norm()
            assert difference < 1e-4, name


@pytest.mark.parametrize("path", CONFIGS)
def test_what_is_detected_lies_within_the_image(path):
    model = build(path).eval()
    with torch.inference_mode():
        model.postprocessor.score_thresh = 0.0
        results = model([{**sample, "height": 50, "width": 40} for sample in draw_batch()])
    for result in results:
        found = result["instances"]
        assert len(found) > 2
        assert found.image_size == (50, 40)
        assert (found.pred_boxes >= 0).all()
        assert (found.pred_boxes <= torch.tensor([40, 50, 40, 50])).all()
        assert (found.scores.diff() <= 0).all()


def test_a_joint_score_is_the_geometric_mean_of_the_two():
    logits = torch.tensor([[[-80.0, -3.0, 0.0, 4.0, 30.0, 120.0]]])
    for centerness in (-5.0, 0.0, 2.0, 200.0):
        found = joint_logits(logits, torch.full((1, 1), centerness)).sigmoid()
        expected = (logits.double().sigmoid() * torch.tensor(centerness).double().sigmoid()).sqrt()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
