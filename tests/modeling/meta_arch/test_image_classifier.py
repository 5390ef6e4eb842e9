"""The classifier against torch's modules, and in parts against the whole."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from detlite.errors import DataError
from detlite.modeling import build_meta_arch
from detlite.registry import Block
from detlite.structures import BatchShare

NAMES = ("cat", "dog", "horse")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(**changes):
    torch.manual_seed(0)
    backbone = Block(name="ResNet", depth=18, norm="BN", freeze_at=0, out_features=("res3", "res4"))
    return build_meta_arch(Block(name="ImageClassifier", backbone=backbone, **changes), NAMES)


def draw_batch(sizes=((40, 36), (33, 50))):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8),
            "gt_class": torch.tensor(2 - i),
        }
        for i, size in enumerate(sizes)
    ]


def expected_logits(model, batch):
    sizes = [sample["image"].shape[1:] for sample in batch]
    images = torch.zeros(len(batch), 3, *(max(side) for side in zip(*sizes, strict=True)))
    for slot, sample in zip(images, batch, strict=True):
        _, h, w = sample["image"].shape
        pixels = sample["image"] / 255
        slot[:, :h, :w] = torchvision.transforms.v2.functional.normalize(pixels, MEAN, STD)
    features = model.backbone(images)["res4"]
    return F.linear(features.mean(dim=(2, 3)), model.head.weight, model.head.bias)


def test_it_is_the_mean_of_the_last_map_of_an_image_alone_and_a_linear_layer():
    model, batch = build().eval(), draw_batch()
    assert model.class_names == NAMES
    with torch.no_grad():
        found = model(batch)
        expected = torch.cat([expected_logits(model, [x]) for x in batch]).softmax(dim=1)
    assert [list(output) for output in found] == [["scores"]] * 2
    torch.testing.assert_close(torch.stack([o["scores"] for o in found]), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_training_gives_torchs_cross_entropy_and_the_accuracy(smoothing):
    model = build(loss=Block(name="CrossEntropyLoss", label_smoothing=smoothing)).train()
    batch = draw_batch()
    logits = expected_logits(model, batch)
    classes = torch.tensor([2, 1])
    found = model(batch)
    assert list(found) == ["loss_cls", "accuracy"]
    expected = F.cross_entropy(logits, classes, label_smoothing=smoothing)
    torch.testing.assert_close(found["loss_cls"], expected)
    assert found["accuracy"] == (logits.argmax(dim=1) == classes).float().mean()


def test_probabilities_of_classes_are_targets_too():
    model = build().train()
    batch = draw_batch()
    mixed = [{**sample, "gt_probs": torch.tensor([0.2, 0.0, 0.8])} for sample in batch]
    expected = F.cross_entropy(
        expected_logits(model, batch), torch.stack([mixed[0]["gt_probs"]] * 2)
    )
    torch.testing.assert_close(model(mixed)["loss_cls"], expected)


def test_parts_of_a_batch_add_up_to_the_whole():
    model = build(dropout=0.0).train()
    # Batch norms see a part only; without them the sum must be exact.
    model.backbone.eval()
    batch = draw_batch(((40, 36), (33, 50), (20, 20)))
    whole = model(batch)
    gradient = torch.autograd.grad(whole["loss_cls"], model.head.weight)[0]
    weights = model.loss_weights(model.count_targets(batch, (40, 50)))
    parts = [
        model(batch[part], BatchShare((40, 50), weights[part]))
        for part in (slice(0, 1), slice(1, 3))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)
    sums = [torch.autograd.grad(part["loss_cls"], model.head.weight)[0] for part in parts]
    torch.testing.assert_close(sums[0] + sums[1], gradient)


def test_dropout_is_in_training_only():
    model, batch = build(dropout=1.0), draw_batch()
    torch.testing.assert_close(
        model.train()(batch)["loss_cls"],
        F.cross_entropy(model.head.bias.expand(2, 3), torch.tensor([2, 1])),
    )
    with torch.no_grad():
        scores = [output["scores"] for output in model.eval()(batch)]
    assert not torch.equal(scores[0], scores[1])


def test_under_bf16_scores_are_float32_and_the_loss_is_finite():
    model, batch = build(), draw_batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.train()(batch)["loss_cls"].dtype == torch.float32
        assert model.eval()(batch)[0]["scores"].dtype == torch.float32


def test_a_sample_of_a_detector_is_refused():
    batch = [{"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "instances": None}]
    with pytest.raises(DataError, match="no 'gt_class' and no 'gt_probs', it has image, instances"):
        build().train()(batch)
