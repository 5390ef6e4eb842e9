"""What is written for another framework is ours to the bit, and that framework's to the letter."""

import pickle

import numpy as np
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from detlite import Predictor, UserError, build_model
from detlite.checkpoint import export_weights, own_weights, read_pretrained

CLASSES = ["cat", "dog", "cow"]
FORMATS = ["detectron2", "torchvision", "mmdet", "safetensors"]


@pytest.mark.parametrize("norms", [("FrozenBN", ""), ("BN", "GN")])
@pytest.mark.parametrize("file_format", FORMATS)
def test_there_and_back_is_the_same_to_the_bit(
    file_format, norms, narrow_model, narrow_config, tmp_path
):
    overrides = [f"model.backbone.norm={norms[0]}", f"model.head.norm='{norms[1]}'"]
    model = narrow_model(CLASSES, *overrides)
    own = own_weights(model, narrow_config(*overrides).to_yaml(), "model")
    export_weights(own, file_format, tmp_path / "weights")
    back = read_pretrained(tmp_path / "weights")
    state = model.state_dict()
    # The average of positives is the loss's, not the network's.
    expected = {name for name in state if not name.startswith("loss_normalizer.")}
    assert set(back.weights) == expected
    assert all(torch.equal(back.weights[name], state[name]) for name in expected)
    assert any(name.endswith("num_batches_tracked") for name in expected) == (norms[0] == "BN")
    assert (back.left_over, back.not_needed) == ([], {})
    # A bare state dict, as torchvision has it, cannot say its classes.
    assert back.class_names == (None if file_format == "torchvision" else tuple(CLASSES))


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (retinanet_resnet50_fpn, ["model.neck.extra_levels.source=p5"]),
        (retinanet_resnet50_fpn_v2, ["model.head.norm=GN", "model.backbone.norm=BN"]),
    ],
)
def test_torchvision_loads_its_file_strictly(make, overrides, narrow_config, tmp_path):
    wide = ["model.neck.out_channels=256", "model.head.num_convs=4", *overrides]
    config = narrow_config(*wide, depth=50)
    content = {"format": "detlite", "config": config.to_yaml(), "class_names": CLASSES}
    with torch.device("meta"):
        peer = make(weights=None, weights_backbone=None, num_classes=3)
    model = build_model(config, CLASSES)
    torch.save({**content, "model": model.state_dict()}, tmp_path / "model.pth")
    Predictor(tmp_path / "model.pth", device="cpu").export("torchvision", tmp_path / "theirs.pth")
    state = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert not peer.load_state_dict(state, strict=True, assign=True).missing_keys
    ours, theirs = model.backbone.res4[2].conv3.weight, peer.backbone.body.layer3[2].conv3.weight
    assert torch.equal(ours, theirs)


def test_a_zoo_file_holds_arrays_that_plain_pickle_reads(narrow_model, narrow_config, tmp_path):
    own = own_weights(narrow_model(CLASSES), narrow_config().to_yaml(), "model")
    export_weights(own, "detectron2", tmp_path / "model.pkl")
    content = pickle.loads((tmp_path / "model.pkl").read_bytes())
    assert content["__author__"] == "detlite"
    assert all(type(value) is np.ndarray for value in content["model"].values())
    assert "backbone.bottom_up.res2.0.conv1.norm.running_var" in content["model"]
    assert "head.bbox_subnet.0.weight" in content["model"]


def test_settings_that_are_not_the_frameworks_own_are_told(narrow_model, narrow_config, tmp_path):
    own = own_weights(narrow_model(CLASSES), narrow_config().to_yaml(), "model")
    notes = export_weights(own, "torchvision", tmp_path / "model.pth")
    assert "model.anchor_generator.order: ratio_major there, size_major here" in notes
    assert export_weights(own, "detectron2", tmp_path / "model.pkl") == []


def test_a_part_that_the_format_has_no_place_for_is_an_error(narrow_model, narrow_config, tmp_path):
    overrides = ["model.backbone.stem=deep"]
    own = own_weights(narrow_model(CLASSES, *overrides), narrow_config().to_yaml(), "model")
    for file_format in ("torchvision", "mmdet"):
        with pytest.raises(UserError, match=f"{file_format} has no place for .*stem.conv"):
            export_weights(own, file_format, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_a_safetensors_file_is_all_that_a_predictor_needs(narrow_model, narrow_config, tmp_path):
    config = narrow_config("data.test_transforms=[{name: ResizeShortestEdge, min_size: 64}]")
    model = narrow_model(CLASSES)
    own = own_weights(model, config.to_yaml(), "model")
    export_weights(own, "safetensors", tmp_path / "model.safetensors")
    predictor = Predictor(tmp_path / "model.safetensors", device="cpu")
    assert predictor.class_names == tuple(CLASSES)
    assert torch.equal(predictor.model.head.cls_score.bias, model.head.cls_score.bias)
    assert len(predictor(np.zeros((64, 64, 3), np.uint8))) <= 100
