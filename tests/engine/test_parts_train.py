"""The parts beyond RetinaNet's train in its config, each as a block and nothing else."""

import math

import pytest

from detlite import Predictor

STAGES = "out_features: [res3, res4]"
PARTS = {
    "pafpn": "model.neck={name: PAFPN, extra_levels: {name: P6P7, source: p4}, bottom_up: paper}",
    "bifpn": "model.neck={name: BiFPN, num_levels: 4, num_layers: 2, out_channels: 16}",
    "torchvision": (
        f"model.backbone={{name: TorchvisionBackbone, model: shufflenet_v2_x0_5, {STAGES}}}"
    ),
    "torchvision, rounding down": (
        f"model.backbone={{name: TorchvisionBackbone, model: convnext_tiny, {STAGES}}}"
    ),
    "timm": f"model.backbone={{name: TimmBackbone, model: mobilenetv3_small_050, {STAGES}}}",
    "timm, frozen norms": (
        "model.backbone={name: TimmBackbone, model: resnet10t, norm: FrozenBN, " + STAGES + "}"
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_trains_and_its_gradient_reaches_every_parameter(part, train):
    trainer = train(PARTS[part], "train.precision=auto", "solver.max_iter=2", "train.hooks=[]")
    assert math.isfinite(trainer.metrics["total_loss"].item())
    without = [name for name, p in trainer.model.named_parameters() if p.grad is None]
    assert without == []


def test_a_checkpoint_of_a_foreign_backbone_knows_itself(train, tmp_path):
    overrides = ("solver.max_iter=2", "train.hooks=[]", "train.ema={decay: 0.5}")
    trainer = train(PARTS["timm"], PARTS["bifpn"], "solver.layer_decay=0.9", *overrides)
    predictor = Predictor(tmp_path / "run/model_final.pth", device="cpu")
    names = {name for name, _ in trainer.model.named_parameters()}
    assert names == {name for name, _ in predictor.model.named_parameters()}
