"""An image gives in a batch of several sizes what it gives alone."""

import inspect
import json
from typing import get_args

import pytest
import torch
from torch import nn

from detlite import HEAD_REGISTRY, NECK_REGISTRY, Backbone
from detlite.data import read_image
from detlite.modeling.anchor_generators import GridAnchorGenerator
from detlite.modeling.heads import FCOSHead, RetinaNetHead
from detlite.modeling.layers import ConvNorm, GroupNorm
from detlite.modeling.loss_normalizer import PerImageNormalizer
from detlite.modeling.meta_arch.fcos import FCOS
from detlite.modeling.meta_arch.retinanet import RetinaNet
from detlite.modeling.necks import FPN
from detlite.modeling.postprocessing import NMSPostprocessor
from detlite.registry import filled_registries
from detlite.structures import BatchShare, ImageExtents, Instances, ShapeSpec, image_extents
from detlite.testing.modules import reinitialize

# Multiples of the coarsest stride: a level of an odd number of cells differs at its border.
SIZES = [(256, 128), (128, 256), (128, 128)]
CANVAS = (256, 256)


class StridedConvs(Backbone):
    """No pooling, which would carry an image's last column into the padding."""

    def __init__(self, norm):
        super().__init__()
        channels = [3, 8, 16, 32, 32]
        self.convs = nn.ModuleList(
            ConvNorm(channels[i], channels[i + 1], 3, stride=2, norm=norm, relu=True)
            for i in range(4)
        )

    def output_shape(self):
        return {"res3": ShapeSpec(32, 8), "res4": ShapeSpec(32, 16)}

    def forward(self, images):
        features = {}
        for i, conv in enumerate(self.convs, start=1):
            images = features[f"res{i}"] = conv(images)
        return {name: features[name] for name in self.output_shape()}


def build(meta_arch=RetinaNet, norm="BN", neck_norm="", **keys):
    torch.manual_seed(0)
    backbone = StridedConvs(norm)
    neck = FPN(input_shape=backbone.output_shape(), out_channels=32, norm=neck_norm)
    head = FCOSHead if meta_arch is FCOS else RetinaNetHead
    model = meta_arch(
        backbone=backbone,
        neck=neck,
        anchor_generator=GridAnchorGenerator(
            strides=[8, 16], base_size=4, scales_per_octave=1, aspect_ratios=(1.0,)
        ),
        head=head(
            input_shape=neck.output_shape(), num_anchors=1, num_classes=2, num_convs=2, norm="GN"
        ),
        num_classes=2,
        loss_normalizer=PerImageNormalizer(),
        postprocessor=NMSPostprocessor(score_thresh=0.0),
        **keys,
    )
    reinitialize(model)
    return model


def draw_batch(sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for size in sizes:
        corner = torch.rand(3, 2, generator=generator) * 60
        boxes = torch.cat((corner, corner + 20 + 40 * torch.rand(3, 2, generator=generator)), 1)
        truth = Instances(size, gt_boxes=boxes, gt_classes=torch.tensor([0, 1, 0]))
        image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": truth})
    return batch


@torch.no_grad()
def detect(model, batch):
    return [result["instances"] for result in model.eval()(batch)]


def differ(found, other):
    return len(found) != len(other) or (found.scores - other.scores).abs().max() > 1e-4


@pytest.mark.parametrize("meta_arch", [RetinaNet, FCOS])
def test_detections_do_not_depend_on_the_batch(meta_arch):
    # Of the first size there are two images, the others are no multiples of the padding.
    batch = draw_batch([(64, 96), (97, 60), (64, 96), (30, 140)])
    model = build(meta_arch)
    alone = [detect(model, [sample])[0] for sample in batch]
    for size in (2, 3, 4):
        parts = [batch[i : i + size] for i in range(0, 4, size)]
        together = [found for part in parts for found in detect(model, part)]
        for found, expected in zip(together, alone, strict=True):
            assert len(found) == len(expected) > 8
            torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
            torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-2)
            assert torch.equal(found.pred_classes, expected.pred_classes)
    # As other frameworks have it.
    model.independent_images = False
    assert differ(detect(model, batch)[0], alone[0])
    assert not differ(detect(model, batch[:1])[0], alone[0])


@pytest.mark.datasets
def test_images_of_the_case_are_detected_alike_at_every_batch_size(cases_dir):
    folder = cases_dir / "mixed-batch-ap"
    images = json.loads((folder / "t.json").read_text())["images"]
    by_size = {(x["height"], x["width"]): x["file_name"] for x in images}
    names = [*by_size.values(), *(x["file_name"] for x in images[:4])]
    batch = [{"image": read_image(str(folder / "img" / name))} for name in names]
    assert len(by_size) == 4
    model = build()
    alone = [detect(model, [sample])[0] for sample in batch]
    for size in (2, 4):
        for i in range(0, len(batch), size):
            for found, expected in zip(detect(model, batch[i : i + size]), alone[i:], strict=False):
                assert not differ(found, expected)


def test_in_training_the_losses_of_a_batch_are_those_of_its_images():
    # Norms that see the image alone in every layer, so that not even its border differs.
    model = build(norm="GN", neck_norm="GN", ignore_padding=True).train()
    batch = draw_batch()
    alone = [model([sample]) for sample in batch]
    for name in ("loss_cls", "loss_box"):
        model.independent_images = True
        expected = sum(losses[name] for losses in alone) / len(batch)
        torch.testing.assert_close(model(batch)[name], expected, rtol=1e-4, atol=0)
        model.independent_images = False
        assert (model(batch)[name] / expected - 1).abs() > 1e-3


def test_parts_of_a_batch_of_several_sizes_add_up_to_it():
    model, batch = build(norm="GN").train(), draw_batch()
    whole = model(batch)
    weights = model.loss_weights(model.count_targets(batch, CANVAS))
    parts = [model(batch[i : i + 1], BatchShare(CANVAS, weights[i : i + 1])) for i in range(3)]
    for name in ("loss_cls", "loss_box"):
        torch.testing.assert_close(sum(part[name] for part in parts), whole[name])


def test_images_of_one_padded_size_are_computed_as_they_were():
    model, batch = build(norm="FrozenBN").train(), draw_batch([(64, 96), (60, 90), (33, 65)])
    found = model(batch)
    detected = detect(model, batch)
    model.independent_images = False
    expected = model.train()(batch)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for ours, theirs in zip(detected, detect(model, batch), strict=True):
        assert torch.equal(ours.pred_boxes, theirs.pred_boxes)
        assert torch.equal(ours.scores, theirs.scores)


def with_group_norm(registry):
    """Names of detlite's components that have a key for a norm, all of which take "GN"."""
    filled_registries()
    for name in registry:
        component = registry.get(name)
        norm = inspect.signature(component).parameters.get("norm")
        if component.__module__.startswith("detlite.") and norm is not None:
            assert "GN" in get_args(norm.annotation)
            yield name


def padded(maps, strides, value):
    """Maps of SIZES from those of each image, and ``value`` on the padding."""
    joined = []
    for level, stride in zip(maps, strides, strict=True):
        cells = [side // stride for side in CANVAS]
        batch = torch.full((len(level), level[0].shape[1], *cells), value)
        for slot, x in zip(batch, level, strict=True):
            slot[:, : x.shape[-2], : x.shape[-1]] = x[0]
        joined.append(batch)
    return joined


def draw_maps(shapes):
    generator = torch.Generator().manual_seed(1)
    return [
        [
            torch.randn(1, s.channels, height // s.stride, width // s.stride, generator=generator)
            for height, width in SIZES
        ]
        for s in shapes
    ]


def assert_images_equal(found, expected, stride):
    for x, other, (height, width) in zip(found, expected, SIZES, strict=True):
        inside = x[None, :, : -(-height // stride), : -(-width // stride)]
        torch.testing.assert_close(inside, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(with_group_norm(NECK_REGISTRY)))
def test_a_neck_with_group_norm_sees_no_padding(name):
    shapes = {f"res{i}": ShapeSpec(8 * i, 2**i) for i in (3, 4, 5)}
    neck = NECK_REGISTRY.build({"name": name, "norm": "GN", "out_channels": 16}, input_shape=shapes)
    assert any(isinstance(module, GroupNorm) for module in neck.modules())
    maps = draw_maps(shapes.values())
    strides = [s.stride for s in shapes.values()]
    together = []
    with torch.no_grad(), image_extents(ImageExtents(torch.tensor(SIZES), CANVAS)):
        for value in (0.0, 50.0):
            together.append(neck(dict(zip(shapes, padded(maps, strides, value), strict=True))))
    alone = [neck({n: level[i] for n, level in zip(shapes, maps, strict=True)}) for i in range(3)]
    for level, spec in neck.output_shape().items():
        torch.testing.assert_close(together[0][level], together[1][level])
        # Pooling carries an image's last column into the padding, from where it comes back.
        if name != "BiFPN":
            assert_images_equal(together[1][level], [x[level].detach() for x in alone], spec.stride)


@pytest.mark.parametrize("name", sorted(with_group_norm(HEAD_REGISTRY)))
def test_a_head_with_group_norm_sees_no_padding(name):
    shapes = {f"p{i}": ShapeSpec(16, 2**i) for i in (3, 4)}
    given = {"input_shape": shapes, "num_anchors": 1, "num_classes": 2, "code_size": 4}
    head = HEAD_REGISTRY.build({"name": name, "norm": "GN"}, **given)
    reinitialize(head)
    strides = [s.stride for s in shapes.values()]
    maps = draw_maps(shapes.values())
    # Zeros, as its own convolutions see beyond the border of an image alone.
    with torch.no_grad(), image_extents(ImageExtents(torch.tensor(SIZES), CANVAS)):
        together = head(padded(maps, strides, 0.0))
    for k in range(len(together)):
        alone = [head([level[i] for level in maps])[k].detach() for i in range(3)]
        # Rows of all levels to maps.
        areas = [CANVAS[0] * CANVAS[1] // s**2 for s in strides]
        values = together[k].reshape(3, sum(areas), -1).split(areas, dim=1)
        for level, stride in enumerate(strides):
            maps_found = values[level].unflatten(1, [side // stride for side in CANVAS])
            own_areas = [[h * w // s**2 for s in strides] for h, w in SIZES]
            expected = [
                x.reshape(1, sum(areas_i), -1)
                .split(areas_i, dim=1)[level]
                .unflatten(1, (h // stride, w // stride))
                .movedim(-1, 1)
                for x, areas_i, (h, w) in zip(alone, own_areas, SIZES, strict=True)
            ]
            assert_images_equal(maps_found.movedim(-1, 1), expected, stride)


def test_all_of_detlites_necks_and_heads_were_looked_at():
    assert set(with_group_norm(NECK_REGISTRY)) == {"FPN", "PAFPN", "BiFPN"}
    assert set(with_group_norm(HEAD_REGISTRY)) == {"RetinaNetHead", "FCOSHead"}


class Dense(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, sizes):
        predictions = self.model.predict(images, sizes)
        return predictions.logits, predictions.deltas


def test_the_dense_part_is_compiled_whole_with_sizes_as_data():
    dense = Dense(build().eval())
    images = torch.randn(2, 3, 64, 96)
    graphs = []
    compiled = torch.compile(
        dense, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph
    )
    with torch.no_grad():
        for size in ([32, 96], [64, 64]):
            sizes = torch.tensor([[64, 96], size])
            expected = dense(images, sizes)
            assert not torch.allclose(expected[0], dense(images, None)[0])
            torch.testing.assert_close(compiled(images, sizes), expected)
    assert len(graphs) == 1
