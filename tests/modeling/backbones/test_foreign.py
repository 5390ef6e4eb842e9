"""What holds for every backbone that is made of another library's model."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from detlite import build_model, load_config
from detlite.checkpoint import load_pretrained
from detlite.modeling import BACKBONE_REGISTRY
from detlite.registry import Block

# One that rounds sizes up, and one that rounds them down, of each library.
MODELS = [
    ("TorchvisionBackbone", "shufflenet_v2_x0_5"),
    ("TorchvisionBackbone", "convnext_tiny"),
    ("TimmBackbone", "mobilenetv3_small_050"),
    ("TimmBackbone", "convnext_atto"),
]
QUICKSTART = "configs/quickstart.yaml"


def build(name, model, **keys):
    return BACKBONE_REGISTRY.build(Block(name=name, model=model, **keys))


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_backbone_keeps_the_contract(name, model):
    backbone = build(name, model)
    images = torch.randn(2, 3, 75, 41, generator=torch.Generator().manual_seed(0))
    features = backbone(images.contiguous(memory_format=torch.channels_last))
    for stage, shape in backbone.output_shape().items():
        sides = (-(-75 // shape.stride), -(-41 // shape.stride))
        assert features[stage].shape == (2, shape.channels, *sides)
    sum(x.square().mean() for x in features.values()).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
    layers = backbone.layers()
    assert all(backbone.get_submodule(layer) is not None for layer in layers)
    outside = [
        name
        for name, _ in backbone.named_parameters()
        if not name.startswith(tuple(f"{layer}." for layer in layers))
    ]
    assert outside == []


@pytest.mark.parametrize(("name", "model"), MODELS[1::2])
def test_a_model_that_rounds_down_gets_padding_and_its_maps_are_cut(name, model):
    backbone = build(name, model).eval()
    images = torch.randn(1, 3, 40, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, padded = backbone(images), backbone(F.pad(images, (0, 26, 0, 24)))
    for stage, shape in backbone.output_shape().items():
        height, width = -(-40 // shape.stride), -(-70 // shape.stride)
        assert torch.equal(found[stage], padded[stage][..., :height, :width])


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_copy_and_a_compiled_backbone_compute_the_same(name, model):
    backbone = build(name, model, out_features=("res2", "res4")).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = backbone(images)
        other = copy.deepcopy(backbone)
        for parameter in other.parameters():
            parameter.zero_()
        torch._dynamo.reset()
        # The whole is one graph: nothing in it falls back to Python.
        compiled = torch.compile(backbone, backend="eager", fullgraph=True)(images)
        zeroed = other(images)
    for stage, value in expected.items():
        assert torch.equal(compiled[stage], value)
        assert not torch.equal(zeroed[stage], value)


def test_frozen_norms_are_buffers_and_compute_what_trained_ones_do_in_evaluation(randomize_norms):
    trained = build("TorchvisionBackbone", "shufflenet_v2_x0_5").eval()
    randomize_norms(trained)
    frozen = build("TorchvisionBackbone", "shufflenet_v2_x0_5", norm="FrozenBN")
    frozen.load_state_dict(trained.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, features = trained(images), frozen.train()(images)
    for stage, value in features.items():
        torch.testing.assert_close(value, expected[stage], rtol=1e-4, atol=1e-5)
    assert {p.ndim for p in frozen.parameters()} == {4}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("TorchvisionBackbone", lambda: torchvision.models.get_model("resnet18")),
        ("TimmBackbone", lambda: timm.create_model("convnext_atto")),
    ],
)
def test_the_librarys_own_file_is_loaded_as_the_models_weights(name, make, tmp_path):
    peer = make()
    torch.save(peer.state_dict(), tmp_path / "weights.pth")
    block = {"TorchvisionBackbone": "resnet18", "TimmBackbone": "convnext_atto"}[name]
    backbone = f"model.backbone={{name: {name}, model: {block}, out_features: [res3, res4]}}"
    model = build_model(load_config(QUICKSTART, [backbone, "device=cpu"]), ["one", "two"])
    report = load_pretrained(model, tmp_path / "weights.pth", ["one", "two"])
    assert report.share("backbone.") == 1
    assert report.left_over == []
    state = {key.replace(".", "_"): value for key, value in peer.state_dict().items()}
    for key, value in model.backbone.body.state_dict().items():
        assert torch.equal(value, state[key.replace(".", "_")])
