"""The maps are those of timm's own ``features_only`` models."""

import sys

import pytest
import timm
import torch

from detlite.errors import UserError
from detlite.modeling.backbones import TimmBackbone

STAGES = ("res2", "res3", "res4", "res5")
SWIN = {"strict_img_size": False}
# Channels as timm's feature_info says them, and arguments.
PEERS = {
    "resnet18": ([64, 128, 256, 512], None),
    "mobilenetv3_small_050": ([8, 16, 24, 288], None),
    "convnext_atto": ([40, 80, 160, 320], None),
    "efficientnet_lite0": ([24, 40, 112, 320], None),
    "swin_tiny_patch4_window7_224": ([96, 192, 384, 768], SWIN),
}


@pytest.mark.parametrize("name", PEERS)
def test_maps_equal_timms(name, randomize_norms):
    channels, arguments = PEERS[name]
    peer = timm.create_model(name, features_only=True, **(arguments or {})).eval()
    randomize_norms(peer)
    backbone = TimmBackbone(model=name, out_features=STAGES, arguments=arguments).eval()
    backbone.body.load_state_dict(peer.state_dict())
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, features = peer(images)[-4:], backbone(images)
    assert list(features) == list(STAGES)
    for i, (stage, value) in enumerate(features.items()):
        shape = backbone.output_shape()[stage]
        assert (shape.channels, shape.stride) == (channels[i], 4 * 2**i)
        assert value.shape == (1, channels[i], 64 // shape.stride, 96 // shape.stride)
        channels_last = expected[i].shape[1] != channels[i]
        theirs = expected[i].permute(0, 3, 1, 2) if channels_last else expected[i]
        assert torch.equal(value, theirs), stage


def test_an_activation_within_a_norm_survives_the_freezing(randomize_norms):
    trained = TimmBackbone(model="mobilenetv3_small_050").eval()
    randomize_norms(trained)
    frozen = TimmBackbone(model="mobilenetv3_small_050", norm="FrozenBN")
    frozen.load_state_dict(trained.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, features = trained(images), frozen.train()(images)
    for stage, value in features.items():
        torch.testing.assert_close(value, expected[stage], rtol=1e-4, atol=1e-5)
    assert not [name for name, _ in frozen.named_parameters() if ".bn" in name]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "resnet81"}, "no model 'resnet81'; did you mean 'resnet"),
        ({"model": "vit_tiny_patch16_224"}, "does not take images of 224 x 192"),
        ({"model": "inception_v3"}, "'inception_v3' makes no pyramid of maps"),
        ({"model": "resnet18", "arguments": {"widht": 2}}, "not take these arguments: .*'widht'"),
        (
            {"model": "resnet18", "arguments": {"out_indices": [1]}},
            "arguments must not hold out_indices",
        ),
        (
            {"model": "convnext_atto", "arguments": {"in_chans": 1}},
            "'convnext_atto' does not take images",
        ),
    ],
)
def test_a_model_without_maps_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**keys)


def test_a_plain_vision_transformer_of_any_size_has_no_pyramid():
    with pytest.raises(ValueError, match=r"no pyramid of maps: of the strides .* it has 16"):
        TimmBackbone(model="vit_tiny_patch16_224", arguments={"dynamic_img_size": True})


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        TimmBackbone(model="resnet18")


def test_weights_that_cannot_be_fetched_are_a_clear_error(monkeypatch):
    create = timm.create_model

    def offline(name, *, pretrained=False, **others):
        if pretrained:
            raise OSError("the network is unreachable")
        return create(name, **others)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"cannot fetch .* 'resnet18': the network is unreachable"):
        TimmBackbone(model="resnet18", pretrained=True)
