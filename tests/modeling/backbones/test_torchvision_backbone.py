"""The maps are those that hooks on torchvision's own models catch."""

import pytest
import torch
import torchvision

from detlite.modeling import BACKBONE_REGISTRY
from detlite.modeling.backbones import TorchvisionBackbone
from detlite.registry import Block

STAGES = ("res2", "res3", "res4", "res5")
# The modules of torchvision's model whose outputs are the stages, and their channels, by hand.
PEERS = {
    "resnet18": (["layer1", "layer2", "layer3", "layer4"], [64, 128, 256, 512]),
    "mobilenet_v3_large": ([f"features.{i}" for i in (3, 6, 12, 16)], [24, 40, 112, 960]),
    "efficientnet_b0": ([f"features.{i}" for i in (2, 3, 5, 8)], [24, 40, 112, 1280]),
    "convnext_tiny": ([f"features.{i}" for i in (1, 3, 5, 7)], [96, 192, 384, 768]),
    "regnet_y_400mf": ([f"trunk_output.block{i}" for i in (1, 2, 3, 4)], [48, 104, 208, 440]),
    "shufflenet_v2_x0_5": (["maxpool", "stage2", "stage3", "conv5"], [24, 48, 96, 1024]),
    "densenet121": (
        [*(f"features.denseblock{i}" for i in (1, 2, 3)), "features.norm5"],
        [256, 512, 1024, 1024],
    ),
    "swin_t": (["features.1", "features.3", "features.5", "permute"], [96, 192, 384, 768]),
}


@pytest.mark.parametrize("name", PEERS)
def test_maps_equal_those_of_hooks_on_torchvisions_model(name, randomize_norms):
    torch.manual_seed(0)
    peer = torchvision.models.get_model(name).eval()
    randomize_norms(peer)
    block = Block(name="TorchvisionBackbone", model=name, out_features=STAGES)
    backbone = BACKBONE_REGISTRY.build(block).eval()
    state = {k: v for k, v in peer.state_dict().items() if k in backbone.body.state_dict()}
    backbone.body.load_state_dict(state)
    paths, channels = PEERS[name]
    caught = {}
    for stage, path in zip(STAGES, paths, strict=True):
        peer.get_submodule(path).register_forward_hook(
            lambda module, given, returned, stage=stage: caught.update({stage: returned.clone()})
        )
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        peer(images)
        features = backbone(images)
    if name == "swin_t":  # its own maps have their channels last, but for the last one
        for stage in STAGES[:-1]:
            caught[stage] = caught[stage].permute(0, 3, 1, 2)
    assert list(features) == list(STAGES) == list(backbone.output_shape())
    for i, (stage, value) in enumerate(features.items()):
        assert torch.equal(value, caught[stage]), stage
        shape = backbone.output_shape()[stage]
        assert (shape.channels, shape.stride) == (channels[i], 4 * 2**i)
        assert value.shape == (1, channels[i], 64 // shape.stride, 96 // shape.stride)


def test_what_comes_after_the_last_map_is_no_part_of_the_backbone():
    whole = torchvision.models.resnet18()
    backbone = TorchvisionBackbone(model="resnet18", out_features=("res3",))
    kept = {name for name, _ in backbone.body.named_parameters()}
    unused = ("layer3.", "layer4.", "fc.")
    assert kept == {n for n, _ in whole.named_parameters() if not n.startswith(unused)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "resnet81"}, "no classification model 'resnet81'; did you mean 'resnet18'"),
        ({"model": "vit_b_16"}, "'vit_b_16' does not take images of 224 x 192 .*Wrong image width"),
        (
            {"model": "resnet18", "arguments": {"weights": "DEFAULT"}},
            "'resnet18' does not take these arguments: .*'weights'",
        ),
        ({"model": "squeezenet1_1"}, "'squeezenet1_1' makes no pyramid of maps"),
    ],
)
def test_a_model_without_maps_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(**keys)


def test_further_arguments_reach_the_models_constructor():
    keys = {"model": "resnet18", "arguments": {"width_per_group": 64, "zero_init_residual": True}}
    backbone = TorchvisionBackbone(**keys)
    assert not backbone.body.get_submodule("layer1.0.bn2").weight.any()
