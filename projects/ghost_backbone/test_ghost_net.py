import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detlite import BACKBONE_REGISTRY, Predictor, build_model, build_trainer, load_config
from detlite.modeling.layers import ConvNorm

HERE = Path(__file__).parent
SHAPES = HERE / "retinanet_ghost_fpn_shapes.yaml"
COCO = HERE / "retinanet_ghost_fpn_1x_coco.yaml"
BRIEF = [
    "device=cpu",
    "solver.max_iter=3",
    "data.batch_size=2",
    "data.num_workers=0",
    "data.train.0.num_images=8",
    "data.test.0.num_images=2",
    "train.log_period=1",
    "train.hooks=[]",
]


@pytest.fixture(autouse=True)
def _registered():
    load_config(SHAPES)


def ghost_net(**keys):
    return BACKBONE_REGISTRY.build({"name": "GhostNet", **keys})


class Classifier(nn.Module):
    """GhostNet with the rest of table 1, as the paper counts it."""

    def __init__(self, width):
        super().__init__()
        self.backbone = ghost_net(width=width)
        channels = self.backbone.output_shape()["res5"].channels
        self.head = nn.Sequential(
            ConvNorm(channels, 6 * channels, 1, norm="BN", relu=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(6 * channels, 1280, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1280, 1000),
        )

    def forward(self, images):
        return self.head(self.backbone(images)["res5"])


@pytest.mark.parametrize(
    ("width", "millions_of_weights", "millions_of_multiply_adds"),
    [(0.5, 2.6, 42), (1.0, 5.2, 142), (1.3, 7.3, 226)],  # what the paper reports
)
def test_classifier_has_the_papers_size_and_cost(
    width, millions_of_weights, millions_of_multiply_adds
):
    model = Classifier(width).eval()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        millions_of_weights, rel=0.01
    )
    # torch counts convolutions and matrix products, two operations a multiply-add.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions_of_multiply_adds, rel=0.01)


def test_stages_have_the_channels_of_table_1():
    shapes = ghost_net(out_features=["res2", "res3", "res4", "res5"]).output_shape()
    assert [spec.channels for spec in shapes.values()] == [24, 40, 112, 160]
    assert [spec.stride for spec in shapes.values()] == [4, 8, 16, 32]


@pytest.mark.parametrize("norm", ["BN", "GN"])
@pytest.mark.parametrize("width", [0.1, 0.5, 1.3])
@pytest.mark.parametrize("out_features", [["res2"], ["res5", "res3"]])
def test_output_shape_tells_what_forward_gives(width, norm, out_features):
    backbone = ghost_net(width=width, norm=norm, out_features=out_features)
    features = backbone(torch.zeros(2, 3, 64, 96))
    shapes = backbone.output_shape()
    assert list(features) == list(shapes) == sorted(out_features)
    for name, spec in shapes.items():
        size = (2, spec.channels, 64 // spec.stride, 96 // spec.stride)
        assert features[name].shape == size


def test_sizes_that_the_strides_do_not_divide_are_rounded_up():
    load_config(SHAPES)
    backbone = BACKBONE_REGISTRY.build({"name": "GhostNet", "width": 0.5}).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, 61, 90))
    for name, spec in backbone.output_shape().items():
        size = tuple(math.ceil(side / spec.stride) for side in (61, 90))
        assert features[name].shape[-2:] == size


def test_stages_after_the_last_one_asked_for_are_not_built():
    assert list(ghost_net(out_features=["res3"]).stages) == ["res1", "res2", "res3"]


def test_no_stage_is_refused():
    with pytest.raises(ValueError, match="must name a stage"):
        ghost_net(out_features=[])


def test_a_depthwise_convolution_begins_with_the_variance_of_its_own_fan_out():
    torch.manual_seed(0)
    cheap = ghost_net().stages["res5"][1].residual[0].cheap
    assert cheap.weight.shape == (480, 1, 3, 3)
    assert cheap.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_every_parameter_gets_a_gradient():
    backbone = ghost_net(width=0.5)
    sum(x.square().sum() for x in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    idle = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_coco_config_builds_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(COCO, ["device=cpu"])
    model = build_model(config, class_names=["cat", "dog"])
    assert config.solver.optimizer["lr"] == 0.02
    assert list(model.neck.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]


def test_it_trains_and_the_checkpoint_predicts(tmp_path):
    trainer = build_trainer(load_config(SHAPES, [*BRIEF, f"output_dir={tmp_path}"]))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    assert [n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n])] == []

    predictor = Predictor(tmp_path / "model_final.pth", device="cpu", trust_imports=True)
    assert predictor.config.model.backbone["name"] == "GhostNet"
    instances = predictor(torch.zeros(3, 128, 128, dtype=torch.uint8))
    assert instances.pred_boxes.shape == (len(instances), 4)


def test_a_run_goes_on_where_it_stopped(tmp_path):
    overrides = [*BRIEF, f"output_dir={tmp_path}", "model.backbone.width=0.25", "data.test=[]"]
    build_trainer(load_config(SHAPES, overrides)).train()
    longer = load_config(SHAPES, [*overrides, "solver.max_iter=5"])
    trainer = build_trainer(longer, resume=True)
    assert trainer.start_iter == 3
    trainer.train()
    assert trainer.iter == 4
