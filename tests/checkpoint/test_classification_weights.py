"""Weights of classifiers: torchvision's give its logits to the bit, ours go into detectors."""

import pathlib

import pytest
import torch
import torchvision

from detlite import CheckpointError, Predictor, build_model, load_config
from detlite.checkpoint import load_pretrained
from detlite.checkpoint.interop import recognize
from detlite.modeling import build_meta_arch
from detlite.registry import Block

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SMALL = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {"depth": 50},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "width_per_group": 4},
}
LARGE = {
    "resnet101": {"depth": 101},
    "resnet152": {"depth": 152},
    "wide_resnet50_2": {"depth": 50, "width_per_group": 128},
    "wide_resnet101_2": {"depth": 101, "width_per_group": 128},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "width_per_group": 8},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "width_per_group": 4},
}
NAMES = [str(k) for k in range(1000)]


def torchvision_model(name, num_classes=1000):
    """The network in evaluation, everything in it random, its logits of size one."""
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(num_classes=num_classes)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.ndim > 1:
                value.normal_(0, value[0].numel() ** -0.5)
            elif value.is_floating_point():
                value.uniform_(0.5, 1.5) if "running_mean" not in key else value.normal_(0, 0.1)
            else:
                value.zero_()
    return model.eval()


def classifier(num_classes=1000, **backbone):
    """Ours, empty."""
    resnet = Block(name="ResNet", norm="BN", freeze_at=0, out_features=["res5"], **backbone)
    block = Block(name="ImageClassifier", backbone=resnet)
    with torch.device("meta"):
        model = build_meta_arch(block, NAMES[:num_classes])
    # Buffers that no checkpoint holds, such as the mean colour, would be empty as well.
    model.preprocessor = type(model.preprocessor)(size_divisor=1)
    model.backbone.to_empty(device="cpu")
    model.head.to_empty(device="cpu")
    return model.eval()


def pixels(seed=1):
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "backbone"),
    [*SMALL.items(), *(pytest.param(*row, marks=pytest.mark.slow) for row in LARGE.items())],
)
def test_the_logits_are_torchvisions_to_the_bit(name, backbone):
    theirs, ours = torchvision_model(name), classifier(**backbone)
    report = load_pretrained(ours, recognize(theirs.state_dict(), name), NAMES)
    assert report.share() == 1.0
    assert (report.left_over, report.not_needed) == ([], {})
    with torch.inference_mode():
        expected, found = theirs(pixels()), ours.predict(pixels())
    assert expected.std() > 0.01
    assert torch.equal(found, expected)


@pytest.fixture
def resnet18_file(tmp_path):
    """A state dict of torchvision's ResNet-18 with so many classes, in a file."""

    def write(num_classes):
        state = torchvision_model("resnet18", num_classes).state_dict()
        torch.save(state, tmp_path / "resnet18.pth")
        return state, tmp_path / "resnet18.pth"

    return write


@pytest.fixture
def build(tmp_path):
    """Build a classifier with ``model.weights`` from a file."""

    def run(path, class_names, *overrides):
        config = tmp_path / "config.yaml"
        backbone = "{name: ResNet, depth: 18, norm: BN, freeze_at: 0, out_features: [res5]}"
        config.write_text(f"model: {{name: ImageClassifier, backbone: {backbone}}}")
        every = ["device=cpu", f"model.weights={path}", *overrides]
        return build_model(load_config(config, every), class_names)

    return run


def test_as_many_classes_take_the_head_in_order(resnet18_file, build, caplog):
    caplog.set_level("INFO", logger="detlite")
    state, path = resnet18_file(80)
    # As many as COCO has, and none of COCO's.
    model = build(path, NAMES[:80])
    assert torch.equal(model.head.weight, state["fc.weight"])
    assert torch.equal(model.head.bias, state["fc.bias"])
    assert "class rows: all 80 taken in order" in caplog.text


def test_another_number_of_classes_takes_the_backbone_only_and_says_so(
    resnet18_file, build, caplog
):
    caplog.set_level("INFO", logger="detlite")
    state, path = resnet18_file(10)
    model = build(path, ["cat", "dog"])
    assert torch.equal(model.backbone.res5[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert model.head.weight.shape == (2, 512)
    assert "other shape: head.weight, head.bias" in caplog.text


def test_classes_that_the_user_names_keep_their_rows(resnet18_file, build):
    state, path = resnet18_file(3)
    names = "model.weights_class_names=[bird, cat, dog]"
    model = build(path, ["dog", "cow", "bird"], names)
    assert torch.equal(model.head.weight[[0, 2]], state["fc.weight"][[2, 0]])
    assert not torch.equal(model.head.weight[1], state["fc.weight"][1])


def test_predictor_scores_a_photograph_as_torchvision_does(resnet18_file):
    state, path = resnet18_file(1000)
    config = CONFIGS / "classification/resnet18_imagenet_v1.yaml"
    predictor = Predictor(path, config=config, class_names=NAMES, device="cpu")
    # Of the size that it would be resized to, so that both see the same pixels.
    photo = torch.randint(256, (3, 256, 256), generator=torch.Generator().manual_seed(0))
    photo = photo.to(torch.uint8)
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    theirs = torchvision.models.resnet18().eval()
    theirs.load_state_dict(state)
    with torch.inference_mode():
        expected = theirs(preset(photo)[None]).softmax(dim=1)[0]
    # (x / 255 - mean) / deviation there, (x - 255 mean) / (255 deviation) here.
    torch.testing.assert_close(predictor(photo), expected, rtol=1e-4, atol=1e-6)


def test_a_file_of_a_classifier_is_no_detector(resnet18_file):
    _, path = resnet18_file(3)
    with pytest.raises(CheckpointError, match="ResNet in torchvision's names and no head"):
        Predictor(path, config=CONFIGS / "quickstart.yaml", class_names=["cat", "dog", "cow"])


def test_stage_one_goes_into_a_detector_without_its_classifier(build, tmp_path, caplog):
    caplog.set_level("INFO", logger="detlite")
    classifier = build("''", ["cat", "dog"])
    config = (tmp_path / "config.yaml").read_text()
    content = {"format": "detlite", "model": classifier.state_dict(), "config": config}
    torch.save({**content, "class_names": ["cat", "dog"]}, tmp_path / "model_final.pth")
    keys = [f"model.weights={tmp_path / 'model_final.pth'}", "device=cpu"]
    detector = build_model(load_config(CONFIGS / "quickstart.yaml", keys), ["cell"])
    for name, value in detector.backbone.state_dict().items():
        assert torch.equal(value, classifier.backbone.state_dict()[name]), name
    assert "known and not needed: classifier (2)" in caplog.text
    assert "WARNING" not in caplog.text
