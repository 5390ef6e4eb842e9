"""Weights go where they belong, or it is told where they did not."""

import functools
import hashlib
import http.server
import threading

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from detlite.checkpoint import LoadOptions, load_pretrained, own_weights
from detlite.checkpoint.interop import recognize
from detlite.errors import CheckpointError, ConfigError
from detlite.utils.download import DownloadError

CLASSES = ["cat", "dog", "cow"]


def test_a_checkpoint_of_ours_goes_in_whole(
    detlite_content, narrow_model, narrow_config, load, log
):
    model = narrow_model(CLASSES)
    loaded = load(detlite_content(model, narrow_config()), CLASSES, complete=True)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert "weights: all" in log.text
    assert "WARNING" not in log.text


def test_a_backbone_goes_in_and_the_table_tells_what_is_missing(load, log):
    state = torchvision.models.resnet18().state_dict()
    model = load(state, CLASSES, "model.preprocessor.channel_order=RGB")
    assert torch.equal(model.backbone.res5[1].conv2.weight, state["layer4.1.conv2.weight"])
    lines = [line.split() for line in log.text.splitlines()]
    backbone, neck = ([line for line in lines if line[:1] == [m]] for m in ("backbone", "neck"))
    assert backbone == [["backbone", "100", "0", "0", "0", "0", "100.0", "%"]]
    assert neck == [["neck", "0", "0", "0", "16", "0", "0.0", "%"]]
    assert "known and not needed: classifier (2), batch counters (20)" in log.text


def test_too_little_of_the_backbone_is_an_error_that_names_the_depth(load):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(
        CheckpointError, match=r"(?s)only .* % of the model's backbone.*2-2-2-2 .* model's 3-4-6-3"
    ):
        load(state, CLASSES, depth=34)


@pytest.mark.parametrize(("made", "built"), [(34, 18), (50, 18), (18, 50), (101, 50)])
def test_shapes_of_another_depth_are_refused(made, built, load):
    with torch.device("meta"):
        peer = getattr(torchvision.models, f"resnet{made}")()
    state = {name: torch.zeros(value.shape) for name, value in peer.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"(?s)backbone.*set model.backbone.depth"):
        load(state, CLASSES, depth=built)


def test_a_threshold_of_the_users_own_is_kept_to(load):
    state = torchvision.models.resnet18().state_dict()
    for name in list(state):
        if name.startswith("layer4.1"):
            del state[name]
    with pytest.raises(CheckpointError, match=r"57\.\d % .*\(at least 90 %"):
        load(state, CLASSES)
    load(state, CLASSES, "model.weights_threshold=0.5")
    with pytest.raises(ConfigError, match=r"weights_threshold.* <= 1"):
        load(state, CLASSES, "model.weights_threshold=90")


def test_fewer_stages_than_the_file_has_are_not_another_depth(load):
    stages = ["model.backbone.out_features=[res3, res4]", "model.neck.extra_levels=null"]
    load(torchvision.models.resnet18().state_dict(), CLASSES, *stages)


def test_a_model_that_is_not_trained_needs_every_tensor(load):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(CheckpointError, match=r"24 of the model's 124 tensors are not in .*neck\."):
        load(state, CLASSES, complete=True)


def test_nothing_changes_where_loading_fails(narrow_model):
    model = narrow_model(CLASSES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torchvision.models.resnet18().state_dict()
    peer = recognize(state, "file")
    with pytest.raises(CheckpointError):
        load_pretrained(model, peer, CLASSES, options=LoadOptions(complete=True))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_other_anchors_or_levels_leave_the_last_layer_new(
    detlite_content, narrow_model, narrow_config, load, log
):
    model = narrow_model(CLASSES)
    ratios = "model.anchor_generator.aspect_ratios=[1.0]"
    loaded = load(detlite_content(model, narrow_config()), CLASSES, ratios)
    assert torch.equal(loaded.neck.outputs["p3"].weight, model.neck.outputs["p3"].weight)
    assert "other shape: head.cls_score.weight, head.cls_score.bias, head.box_pred" in log.text
    assert "model.anchor_generator.aspect_ratios: [0.5, 1.0, 2.0] there, [1.0] here" in log.text


@pytest.mark.parametrize("key", ["average", "plain"])
def test_the_moving_average_is_what_is_loaded(
    detlite_content, key, narrow_model, narrow_config, load
):
    content = detlite_content(narrow_model(CLASSES), narrow_config())
    averaged = {name: value + 1 for name, value in content["model"].items()}
    if key == "average":
        content["ema"] = averaged
    loaded = load(content, CLASSES)
    expected = (averaged if key == "average" else content["model"])["head.box_pred.bias"]
    assert torch.equal(loaded.head.box_pred.bias, expected)


def test_settings_that_change_the_function_are_warned_of(load, log):
    state = torchvision.models.resnet50().state_dict()
    load(state, CLASSES, depth=50)
    warning = next(r.getMessage() for r in log.records if r.levelname == "WARNING")
    assert "model.backbone.stride_in_1x1: False there, True here" in warning
    assert "model.preprocessor.channel_order: RGB there, BGR here" in warning
    assert len(warning.splitlines()) == 3


def test_the_same_settings_are_not_warned_of(detectron2_state, load, narrow_model, log):
    state = detectron2_state(narrow_model(CLASSES))
    means = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    load(state | {"pixel_mean": means, "pixel_std": torch.ones(3, 1, 1)}, CLASSES)
    assert not [r for r in log.records if r.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("mean", "std", "line"),
    [
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], "std: [58.395, 57.12, 57.375] there"),
        ([90.0, 100.0, 110.0], [1.0, 1.0, 1.0], "mean: [110.0, 100.0, 90.0] there"),
        ([123.675, 116.28, 103.53], [1.0, 1.0, 1.0], "channel_order: RGB there, BGR here"),
    ],
)
def test_the_pixel_means_within_a_file_are_compared(
    detectron2_state, mean, std, line, load, narrow_model, log
):
    state = detectron2_state(narrow_model(CLASSES))
    state |= {"pixel_mean": torch.tensor(mean), "pixel_std": torch.tensor(std)}
    load(state, CLASSES)
    assert f"model.preprocessor.{line}" in log.text


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_the_anchors_within_a_file_are_compared(detectron2_state, moved, load, narrow_model, log):
    model = narrow_model(CLASSES)
    state = detectron2_state(model)
    for i in range(5):
        anchors = getattr(model.anchor_generator, f"cell_anchors_{i}")
        state[f"anchor_generator.cell_anchors.{i}"] = anchors + (moved if i == 3 else 0)
    load(state, CLASSES)
    assert ("model.anchor_generator: other anchors" in log.text) == bool(moved)


def test_torchvisions_first_published_retinanet_runs_with_eps_0():
    with torch.device("meta"):
        peer = torchvision.models.detection.retinanet_resnet50_fpn(
            weights=None, weights_backbone=None
        )
    counted = peer.state_dict()
    frozen = {n: v for n, v in counted.items() if "num_batches" not in n}
    published = "torchvision://RetinaNet_ResNet50_FPN_Weights.COCO_V1"
    assert recognize(frozen, published).settings["backbone.norm_eps"] == 0
    assert "backbone.norm_eps" not in recognize(frozen, "my_own.pth").settings
    assert "backbone.norm_eps" not in recognize(counted, published).settings


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: value.index_fill(0, torch.tensor(1), float("nan")), "NaN"),
        (lambda value: value.to(torch.int32), "int32"),
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to_sparse(), "sparse"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(spoil, message, load):
    state = torchvision.models.resnet18().state_dict()
    state["layer2.0.conv1.weight"] = spoil(state["layer2.0.conv1.weight"])
    with pytest.raises(CheckpointError, match=rf"weights\.pth.*{message}"):
        load(state, CLASSES)


def test_half_precision_becomes_float32(load):
    state = torchvision.models.resnet18().half().state_dict()
    model = load(state, CLASSES)
    expected = state["layer4.1.conv2.weight"].float()
    assert torch.equal(model.backbone.res5[1].conv2.weight, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no checkpoint with weights that detlite knows .it holds nothing"),
        ({"epoch": 3, "args": "..."}, "it holds epoch, args"),
        ([torch.ones(1)], "no weights by name but a list"),
        ({"encoder.weight": torch.ones(1)}, r"1 tensors of an unknown model \(encoder.weight"),
        (
            {"format": "detlite", "config": "seed: 0"},
            "not hold behind them what such a file does: KeyError: 'model'",
        ),
    ],
)
def test_files_without_known_weights_are_told_by_what_they_hold(content, message, load):
    with pytest.raises(CheckpointError, match=message):
        load(content, CLASSES)


def test_a_model_is_read_as_its_own_checkpoint_would_be(narrow_model, narrow_config):
    model = narrow_model(CLASSES)
    own = own_weights(model, narrow_config().to_yaml(), "here")
    assert own.class_names == tuple(CLASSES)
    assert own.settings["anchor_generator.order"] == "size_major"
    assert own.settings["backbone.depth"] == 18
    assert not any(key.startswith(("data", "weights", "matcher")) for key in own.settings)


def test_a_url_is_downloaded_once_and_loaded(
    detlite_content, narrow_model, narrow_config, load, tmp_path, monkeypatch
):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    model = narrow_model(CLASSES)
    torch.save(detlite_content(model, narrow_config()), tmp_path / "model.pth")
    digest = hashlib.sha256((tmp_path / "model.pth").read_bytes()).hexdigest()
    (tmp_path / "model.pth").rename(tmp_path / f"model-{digest[:8]}.pth")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/model-{digest[:8]}.pth"
        loaded = load(url, CLASSES, complete=True)
        with pytest.raises(DownloadError, match=r"nowhere\.pth: .*404"):
            load(f"{url.rpartition('/')[0]}/nowhere.pth", CLASSES)
        server.shutdown()
    # The server is gone; the file is here.
    again = load(url, CLASSES, complete=True)
    for other in (loaded, again):
        assert torch.equal(other.head.cls_score.weight, model.head.cls_score.weight)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_a_safetensors_file_of_timm_is_loaded_from_its_content(name, load, tmp_path, log):
    peer = timm.create_model(name)
    # The name says nothing, the content all.
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "weights.bin", {"format": "pt"})
    variant = (
        ["model.backbone.stem=deep", "model.backbone.avg_down=true"] if "d" in name[6:] else []
    )
    model = load(tmp_path / "weights.bin", CLASSES, *variant).backbone
    assert torch.equal(model.res5[1].conv2.weight, peer.layer4[1].conv2.weight)
    if variant:
        assert torch.equal(model.stem.conv3.weight, peer.conv1[6].weight)
        assert torch.equal(model.stem.conv3.norm.weight, peer.bn1.weight)
        assert torch.equal(model.res4[0].shortcut.weight, peer.layer3[0].downsample[1].weight)
    # BGR is the recipe's; what the file says of its own structure is as it should be.
    assert "model.backbone.stem" not in log.text
    assert "model.backbone.avg_down" not in log.text


@pytest.mark.parametrize(("variant", "line"), [
    (["model.backbone.stem=deep"], "model.backbone.avg_down: True there, False here"),
    (["model.weights_threshold=0"], "model.backbone.stem: deep there, 7x7 here"),
])  # fmt: skip
def test_a_variant_whose_shapes_are_the_same_is_warned_of(variant, line, load, log):
    load(timm.create_model("resnet18d").state_dict(), CLASSES, *variant)
    assert line in log.text


def test_a_backbone_of_other_shapes_is_an_error_however_small_the_share(load):
    # Of a "d" variant only the stem differs, a thousandth of the weights.
    with pytest.raises(
        CheckpointError, match=r"5 of the model's backbone tensors .* another shape"
    ):
        load(timm.create_model("resnet18d").state_dict(), CLASSES)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"format": "safetensors"}, "KeyError: 'metadata'"),
        ({"format": "detlite", "model": 3}, "TypeError|AttributeError"),
        ({"format": "detlite", "model": {}, "config": "["}, "ConfigError"),
        ({"backbone.bottom_up.x": torch.ones(1), "pixel_mean": torch.ones(0),
          "pixel_std": torch.ones(0)}, "IndexError"),
        ({"bbox_head.retina_cls.weight": torch.ones(1),
          "neck.lateral_convs.0.conv.weight": torch.tensor(1.0)}, "IndexError"),
        ({"bbox_head.retina_cls.weight": torch.ones(1),
          "backbone.layer2.0.conv1.weight": torch.tensor(1.0)}, "TypeError"),
    ],
)  # fmt: skip
def test_known_names_with_something_else_behind_them_are_an_error(state, message, load):
    with pytest.raises(CheckpointError, match=rf"behind them what such a file does: {message}"):
        load(state, CLASSES)
