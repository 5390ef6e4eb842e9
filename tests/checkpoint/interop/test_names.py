"""Every tensor of a peer's model has its place in ours, and each of ours one in the peer's."""

import re

import pytest
import timm
import torch
import torchvision
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from detlite.checkpoint.interop import recognize
from detlite.modeling import build_meta_arch
from detlite.registry import Block


def our_shapes(depth=50, head_norm="", p6_source="res5", **backbone):
    """Names and shapes of our model, counters of batches aside."""
    block = Block(
        name="RetinaNet",
        backbone=Block(name="ResNet", depth=depth, norm="BN", freeze_at=0, **backbone),
        neck=Block(name="FPN", extra_levels=Block(name="P6P7", source=p6_source)),
        anchor_generator=Block(name="GridAnchorGenerator"),
        head=Block(name="RetinaNetHead", norm=head_norm),
    )
    with torch.device("meta"):
        state = build_meta_arch(block, [str(k) for k in range(80)]).state_dict()
    return shapes_of({n: v for n, v in state.items() if not n.startswith("loss_normalizer.")})


def shapes_of(weights):
    return {
        name: tuple(value.shape)
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def backbone_of(shapes):
    return {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"depth": 18}),
        ("resnet34", {"depth": 34}),
        ("resnet50", {}),
        ("resnet101", {"depth": 101}),
        ("resnext50_32x4d", {"groups": 32, "width_per_group": 4}),
        ("wide_resnet50_2", {"width_per_group": 128}),
    ],
)
def test_all_of_torchvisions_resnets_is_ours(name, arguments):
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
    found = recognize(state, name)
    classifier = {f"head.{part}": tuple(state[f"fc.{part}"].shape) for part in ("weight", "bias")}
    assert shapes_of(found.weights) == backbone_of(our_shapes(**arguments)) | classifier
    assert (found.left_over, found.not_needed) == ([], {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"depth": 18}),
        ("resnet50", {}),
        ("resnet18d", {"depth": 18, "stem": "deep", "avg_down": True}),
        ("resnet50d", {"stem": "deep", "avg_down": True}),
        ("resnet101d", {"depth": 101, "stem": "deep", "avg_down": True}),
        ("resnext50_32x4d", {"groups": 32, "width_per_group": 4}),
    ],
)
def test_all_of_timms_resnets_is_ours(name, arguments):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    found = recognize(state, name)
    assert backbone_of(shapes_of(found.weights)) == backbone_of(our_shapes(**arguments))
    assert {*found.weights} >= {"head.weight", "head.bias"}
    assert found.left_over == []


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (retinanet_resnet50_fpn, {"p6_source": "p5"}),
        (retinanet_resnet50_fpn_v2, {"head_norm": "GN"}),
    ],
)
def test_all_of_torchvisions_retinanets_is_ours(make, arguments):
    with torch.device("meta"):
        state = make(weights=None, weights_backbone=None, num_classes=80).state_dict()
    found = recognize(state, "file")
    assert shapes_of(found.weights) == our_shapes(**arguments)
    assert (found.left_over, found.not_needed) == ([], {})
    assert found.settings["neck.extra_levels.source"] == arguments.get("p6_source", "res5")


def test_torchvisions_names_before_0_13_are_the_same_weights():
    with torch.device("meta"):
        state = retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    old = {}
    for name, value in state.items():
        name = re.sub(r"(blocks\.\d)\.0\.", r"\1.", name)
        # Convolutions and ReLUs took turns.
        name = re.sub(r"_head\.conv\.(\d)\.0\.", lambda m: f"_head.conv.{2 * int(m[1])}.", name)
        old[name] = value
    assert "head.regression_head.conv.6.bias" in old
    assert "backbone.fpn.inner_blocks.2.weight" in old
    new, found = recognize(state, "new"), recognize(old, "old")
    assert list(found.weights) == list(new.weights)
    assert all(found.weights[name] is value for name, value in new.weights.items())


BLOCKS = {"2": 3, "3": 4, "4": 6, "5": 3}
MIDDLE = {"2": 64, "3": 128, "4": 256, "5": 512}


def detectron2_shapes(classes=80, anchors=9):
    """A RetinaNet R50-FPN of detectron2, by its model zoo: 301 tensors."""
    shapes = {"backbone.bottom_up.stem.conv1.weight": (64, 3, 7, 7)}
    norms = {"backbone.bottom_up.stem.conv1": 64}
    width = 64
    for stage, count in BLOCKS.items():
        middle = MIDDLE[stage]
        for i in range(count):
            block = f"backbone.bottom_up.res{stage}.{i}"
            shapes[f"{block}.conv1.weight"] = (middle, width, 1, 1)
            shapes[f"{block}.conv2.weight"] = (middle, middle, 3, 3)
            shapes[f"{block}.conv3.weight"] = (4 * middle, middle, 1, 1)
            norms |= {f"{block}.conv1": middle, f"{block}.conv2": middle}
            norms[f"{block}.conv3"] = 4 * middle
            if i == 0:
                shapes[f"{block}.shortcut.weight"] = (4 * middle, width, 1, 1)
                norms[f"{block}.shortcut"] = 4 * middle
            width = 4 * middle
    for layer, channels in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{layer}.norm.{part}"] = (channels,)

    def conv(name, out_channels, in_channels, size):
        shapes[f"{name}.weight"] = (out_channels, in_channels, size, size)
        shapes[f"{name}.bias"] = (out_channels,)

    for level, channels in ((3, 512), (4, 1024), (5, 2048)):
        conv(f"backbone.fpn_lateral{level}", 256, channels, 1)
        conv(f"backbone.fpn_output{level}", 256, 256, 3)
    conv("backbone.top_block.p6", 256, 2048, 3)
    conv("backbone.top_block.p7", 256, 256, 3)
    for subnet in ("cls_subnet", "bbox_subnet"):
        for i in (0, 2, 4, 6):
            conv(f"head.{subnet}.{i}", 256, 256, 3)
    conv("head.cls_score", anchors * classes, 256, 3)
    conv("head.bbox_pred", anchors * 4, 256, 3)
    return shapes


def empty(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_all_of_detectron2s_retinanet_is_ours():
    shapes = detectron2_shapes()
    assert len(shapes) == 301
    extra = {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1)}
    tensors = empty(shapes) | {name: torch.ones(shape) for name, shape in extra.items()}
    tensors |= {f"anchor_generator.cell_anchors.{i}": torch.zeros(9, 4) for i in range(5)}
    found = recognize({"model": tensors, "__author__": "zoo"}, "file")
    assert shapes_of(found.weights) == our_shapes()
    assert found.left_over == []
    assert found.not_needed == {"pixel mean and deviation": 2, "anchors": 5}
    assert len(found.cell_anchors) == 5


def test_a_subnet_with_norms_is_numbered_otherwise_in_detectron2():
    state = empty(detectron2_shapes())
    for subnet in ("cls_subnet", "bbox_subnet"):
        convs = {i: state.pop(f"head.{subnet}.{i}.weight") for i in (0, 2, 4, 6)}
        biases = [state.pop(f"head.{subnet}.{i}.bias") for i in convs]
        assert len(biases) == 4
        for i in convs:
            state[f"head.{subnet}.{3 * i // 2}.weight"] = convs[i]
            for part in ("weight", "bias"):
                state[f"head.{subnet}.{3 * i // 2 + 1}.{part}"] = torch.empty(256, device="meta")
    assert "head.cls_subnet.9.weight" in state
    found = recognize(state, "file")
    assert shapes_of(found.weights) == our_shapes(head_norm="GN")
    assert found.left_over == []


def mmdet_state():
    """A RetinaNet R50-FPN of mmdetection: its own names around torchvision's ResNet."""
    with torch.device("meta"):
        resnet = torchvision.models.resnet50().state_dict()
        state = {f"backbone.{n}": v for n, v in resnet.items() if not n.startswith("fc.")}
    shapes = {}

    def conv(name, out_channels, in_channels, size):
        shapes[f"{name}.weight"] = (out_channels, in_channels, size, size)
        shapes[f"{name}.bias"] = (out_channels,)

    for i, channels in enumerate((512, 1024, 2048)):
        conv(f"neck.lateral_convs.{i}.conv", 256, channels, 1)
    for i, channels in enumerate((256, 256, 256, 2048, 256)):
        conv(f"neck.fpn_convs.{i}.conv", 256, channels, 3)
    for i in range(4):
        conv(f"bbox_head.cls_convs.{i}.conv", 256, 256, 3)
        conv(f"bbox_head.reg_convs.{i}.conv", 256, 256, 3)
    conv("bbox_head.retina_cls", 720, 256, 3)
    conv("bbox_head.retina_reg", 36, 256, 3)
    return state | empty(shapes)


@pytest.mark.parametrize("meta_key", ["dataset_meta", "CLASSES", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_all_of_mmdetections_retinanet_is_ours(prefix, meta_key):
    names = [f"class {k}" for k in range(80)]
    meta = {"dataset_meta": {"classes": names}} if meta_key == "dataset_meta" else {"epoch": 12}
    meta |= {"CLASSES": tuple(names)} if meta_key == "CLASSES" else {}
    state = {prefix + name: value for name, value in mmdet_state().items()}
    found = recognize({"meta": meta, "state_dict": state, "optimizer": {}}, "file")
    assert shapes_of(found.weights) == our_shapes()
    assert found.left_over == []
    assert found.class_names == (tuple(names) if meta_key else None)


def test_mmdetections_averages_beside_the_weights_are_known():
    state = mmdet_state()
    state["ema_backbone_conv1_weight"] = state["backbone.conv1.weight"]
    found = recognize({"state_dict": state}, "file")
    assert found.not_needed == {"moving averages": 1}


CAFFE2 = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_riv": "stem.conv1.norm.running_var",
    "res_conv1_bn_gamma": "stem.conv1.norm.weight",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res2_0_branch1_bn_s": "res2.0.shortcut.norm.weight",
    "res4_5_branch2a_bn_b": "res4.5.conv1.norm.bias",
    "res4_22_branch2b_bn_running_mean": "res4.22.conv2.norm.running_mean",
    "res5_2_branch2c_bn_running_var": "res5.2.conv3.norm.running_var",
    "res3_1_branch2c_bn_beta": "res3.1.conv3.norm.bias",
    "res3_1_branch2c_gn_bias": "res3.1.conv3.norm.bias",
}
PYCLS = {
    "stem.conv.weight": "stem.conv1.weight",
    "stem.bn.running_mean": "stem.conv1.norm.running_mean",
    "s1.b1.proj.weight": "res2.0.shortcut.weight",
    "s1.b1.bn.bias": "res2.0.shortcut.norm.bias",
    "s3.b23.f.a.weight": "res4.22.conv1.weight",
    "s4.b3.f.b_bn.running_var": "res5.2.conv2.norm.running_var",
    "s4.b3.f.c_bn.weight": "res5.2.conv3.norm.weight",
}


@pytest.mark.parametrize(("theirs", "ours"), CAFFE2.items())
def test_caffe2_names(theirs, ours):
    found = recognize({"res2_0_branch2a_w": torch.ones(1), theirs: torch.zeros(3)}, "file")
    assert torch.equal(found.weights[f"backbone.{ours}"], torch.zeros(3))


@pytest.mark.parametrize(("theirs", "ours"), PYCLS.items())
def test_pycls_names(theirs, ours):
    content = {"model_state": {"s1.b1.f.a.weight": torch.ones(1), theirs: torch.zeros(3)}}
    found = recognize(content, "file")
    assert torch.equal(found.weights[f"backbone.{ours}"], torch.zeros(3))


def caffe2_state(dialect):
    """A whole ResNet-50 in Caffe2's names, folded norms ("s") or with statistics ("gamma")."""
    parts = {"s": "bn_s", "gamma": "bn_gamma"}
    endings = {"weight": parts[dialect], "bias": {"s": "bn_b", "gamma": "bn_beta"}[dialect]}
    if dialect == "gamma":
        endings |= {"running_mean": "bn_running_mean", "running_var": "bn_running_var"}
    state = {}
    for name, shape in detectron2_shapes().items():
        if not name.startswith("backbone.bottom_up."):
            continue
        name = name.removeprefix("backbone.bottom_up.")
        layer, _, part = name.replace(".norm.", "|").rpartition("|" if ".norm." in name else ".")
        if ".norm." in name and part not in endings:
            continue
        ending = endings[part] if ".norm." in name else "w"
        layer = layer.replace("stem.conv1", "res_conv1" if ".norm." in name else "conv1")
        layer = re.sub(r"res(\d)\.(\d)\.", r"res\1_\2_", layer)
        if layer.startswith("res") and "_conv" in layer and layer != "res_conv1":
            layer = re.sub(r"conv([123])$", lambda m: f"branch2{' abc'[int(m[1])]}", layer)
        state[f"{layer.replace('shortcut', 'branch1')}_{ending}"] = torch.ones(shape)
    return state


@pytest.mark.parametrize("dialect", ["s", "gamma"])
def test_a_whole_backbone_of_caffe2_is_ours(dialect):
    state = caffe2_state(dialect)
    state |= {
        "fc1000_w": torch.ones(2),
        "fc1000_b": torch.ones(2),
        "conv1_w_momentum": torch.ones(1),
    }
    found = recognize(state, "file")
    assert shapes_of(found.weights) == backbone_of(our_shapes())
    assert found.left_over == []
    assert found.not_needed == {"classifier": 2, "momentum": 1}
    # Folded statistics change nothing.
    assert found.weights["backbone.res3.0.conv2.norm.running_var"].unique().tolist() == [1]
    if dialect == "s":
        assert found.weights["backbone.res3.0.conv2.norm.running_mean"].unique().tolist() == [0]


def test_a_detector_of_detectron_brings_its_backbone_and_tells_of_the_rest():
    blobs = {**caffe2_state("s"), "retnet_cls_pred_fpn3_w": torch.ones(720, 256, 3, 3)}
    found = recognize({"blobs": blobs, "cfg": "..."}, "file")
    assert shapes_of(found.weights) == backbone_of(our_shapes())
    assert found.left_over == ["retnet_cls_pred_fpn3_w"]
