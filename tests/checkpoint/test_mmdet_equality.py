"""mmdetection's RetinaNet weights give mmdetection's numbers.

The numbers in ``peers/mmdet/golden.npz`` are those of mmdetection 3.3.0 itself, with weights that
``peers/mmdet/seeded_weights.py`` draws, on real photographs; ``peers/mmdet/make_golden.py`` wrote
them. Here the same weights are saved as mmdetection saves them and loaded by our recipe.
"""

import copy
import functools
import importlib.util
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detlite import build_model, load_config
from detlite.data import build_transforms, read_image, transform_sample
from detlite.data.datasets import CocoDetection
from detlite.registry import Block

PEER = Path(__file__).parent / "peers/mmdet"
RECIPES = Path(__file__).parents[2] / "configs/retinanet"
NUM_ANCHORS, NUM_CLASSES = 9, 80

# Convolutions add up in another order on every machine. The floors are for what lies near zero:
# logits are around -8, deltas around 1, boxes in pixels.
TOLERANCE = 1e-4
HEAD_FLOOR, PIXEL_FLOOR = 1e-4, 0.01
# Gradients jump where an L1 difference or the input of a ReLU changes its sign: mmdetection's own
# norms differ by up to 2e-4 between float32 and float64.
GRADIENT_TOLERANCE = 1e-3
OUR_NAMES = {
    "backbone.layer2.0.conv1.weight": "backbone.res3.0.conv1.weight",
    "backbone.layer3.1.bn2.weight": "backbone.res4.1.conv2.norm.weight",
    "neck.fpn_convs.4.conv.weight": "neck.extra_levels.p7.weight",
    "bbox_head.retina_cls.bias": "head.cls_score.bias",
    "bbox_head.retina_reg.weight": "head.box_pred.weight",
}
CASES = [
    "r18_single",
    "r18_batch",
    "r50_single",
    pytest.param("r50_full_size", marks=pytest.mark.slow),
]

pytestmark = pytest.mark.datasets


@functools.cache
def golden_file():
    with np.load(PEER / "golden.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def golden(key):
    return torch.from_numpy(golden_file()[key])


@pytest.fixture(scope="module")
def coco_mini(datasets_dir):
    folder = datasets_dir / "coco_mini"
    return CocoDetection(
        json=str(folder / "annotations/instances_val.json"), images=str(folder / "images")
    )


@pytest.fixture(scope="module")
def model_of(coco_mini, tmp_path_factory):
    """A function from a depth to our recipe's model with mmdetection's file of seeded weights."""
    spec = importlib.util.spec_from_file_location("mmdet_weights", PEER / "seeded_weights.py")
    seeded_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded_weights)

    @functools.cache
    def build(depth):
        checkpoint = seeded_weights.checkpoint(depth, list(coco_mini.class_names))
        state = checkpoint["state_dict"]
        for name, value in state.items():
            state[name] = torch.from_numpy(value)
        path = tmp_path_factory.mktemp("mmdet") / f"r{depth}.pth"
        # The published R50 is of 2020, when torch did not write zip files yet.
        torch.save(checkpoint, path, _use_new_zipfile_serialization=depth != 50)
        config = load_config(recipe(depth), [f"model.weights={path}", "device=cpu"])
        model = build_model(config, coco_mini.class_names, complete=True)
        path.unlink()
        return model

    return build


def recipe(depth):
    return RECIPES / f"retinanet_r{depth}_fpn_1x_coco_mmdet.yaml"


def resize_of(depth, min_size, max_size, *, training=False):
    """The resize of a recipe, which is its first transform, with other sizes."""
    data = load_config(recipe(depth)).data
    block = (data.train_transforms if training else data.test_transforms)[0]
    return build_transforms([Block({**block, "min_size": min_size, "max_size": max_size})])


def detection_batch(case, datasets_dir):
    """The depth of a case, and its batch."""
    depth, min_size, max_size = golden(f"{case}.case").tolist()
    (resize,) = resize_of(depth, min_size, max_size)
    batch = []
    for path in golden_file()[f"{case}.images"]:
        image = read_image(datasets_dir / str(path))
        batch.append({"image": resize(image), "height": image.shape[1], "width": image.shape[2]})
    return depth, batch


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_mmdetection(case, datasets_dir):
    for i, sample in enumerate(detection_batch(case, datasets_dir)[1]):
        image = sample["image"].contiguous()
        assert list(image.shape) == golden(f"{case}.{i}.shape").tolist()
        assert image.sum(dim=(1, 2)).tolist() == golden(f"{case}.{i}.sums").tolist()
        assert zlib.crc32(image.numpy().tobytes()) == golden(f"{case}.{i}.crc")


@pytest.mark.parametrize("case", CASES)
def test_head_outputs_boxes_and_detections_equal_mmdetection(case, model_of, datasets_dir):
    depth, batch = detection_batch(case, datasets_dir)
    # So that all rounding is mmdetection's, and the processor makes no difference.
    model = copy.deepcopy(model_of(depth)).double().eval()
    outputs = []
    hook = model.head.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    with torch.inference_mode():
        results = model(batch)
    hook.remove()
    ((logits, deltas),) = outputs
    check_head(f"{case}.cls", logits, golden(f"{case}.grid").tolist())
    check_head(f"{case}.box", deltas, golden(f"{case}.grid").tolist())
    padded = [-(-max(s["image"].shape[axis] for s in batch) // 32) * 32 for axis in (1, 2)]
    anchors = torch.cat(model.anchor_generator(golden(f"{case}.grid").tolist(), tuple(padded)))
    for i, (sample, result) in enumerate(zip(batch, results, strict=True)):
        rows = golden(f"{case}.{i}.rows").long()
        decoded = model.box_coder.decode(deltas[i, rows], anchors[rows])
        height, width = sample["image"].shape[1:]
        decoded = decoded.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        assert_boxes_close(decoded, golden(f"{case}.{i}.decoded"))
        check_detections(f"{case}.{i}", result["instances"])


def assert_boxes_close(found, expected):
    # What a delta is off by moves an edge by that share of the side, wherever the edge is.
    side = (expected[:, 2:] - expected[:, :2]).amax(dim=1, keepdim=True)
    allowed = PIXEL_FLOOR + TOLERANCE * expected.abs().maximum(side)
    excess = (found - expected).abs() - allowed
    assert (excess <= 0).all(), (
        f"{excess.max()} px too far off, at {expected[excess.argmax() // 4]}"
    )


def check_head(key, values, grid):
    """Values (N, R, V) of each anchor are mmdetection's maps (N, A * V, H, W) of each level."""
    levels = values.split([height * width * NUM_ANCHORS for height, width in grid], dim=1)
    for i, (level, (height, width)) in enumerate(zip(levels, grid, strict=True)):
        maps = level.reshape(len(level), height, width, -1).permute(0, 3, 1, 2)
        found = maps.flatten()[golden(f"{key}{i}.places").long()]
        expected = golden(f"{key}{i}.values").double()
        assert_close(found, expected, rtol=TOLERANCE, atol=HEAD_FLOOR)


def check_detections(key, found):
    boxes, scores = golden(f"{key}.boxes"), golden(f"{key}.scores").double()
    assert len(found) == len(scores)
    assert (found.scores.diff() <= 0).all()
    # Two scores that are equal but for rounding may change places: each box looks for its own.
    distance = (found.pred_boxes[:, None] - boxes).abs().amax(dim=2)
    partner = distance.where(found.pred_classes[:, None] == golden(f"{key}.labels"), 1e6).argmin(0)
    assert sorted(partner.tolist()) == list(range(len(scores)))
    assert found.pred_classes[partner].tolist() == golden(f"{key}.labels").tolist()
    assert_close(found.scores[partner], scores, rtol=TOLERANCE, atol=0)
    assert_boxes_close(found.pred_boxes[partner], boxes)


def test_as_many_parameters_are_trained_as_in_mmdetection(model_of):
    trained = [p.numel() for p in model_of(18).parameters() if p.requires_grad]
    assert [len(trained), sum(trained)] == golden("train.trained").tolist()


@pytest.mark.parametrize("case", ["train.two", "train.one_empty"])
def test_targets_losses_and_gradients_equal_mmdetection(case, model_of, coco_mini):
    model = model_of(18).train()
    ids, sizes = golden(f"{case}.ids").tolist(), golden(f"{case}.case").tolist()
    resize = resize_of(18, *sizes, training=True)
    batch = [transform_sample(coco_mini[coco_mini.image_ids.index(i)], resize) for i in ids]
    gradients = [name for name in OUR_NAMES if f"{case}.gradient.{name}" in golden_file()]
    with torch.set_grad_enabled(bool(gradients)):
        losses, classes, deltas = losses_and_targets(model, batch)
    for i, sample in enumerate(batch):
        check_targets(f"{case}.{i}", sample["instances"], classes[i], deltas[i])
    assert_close(losses["loss_cls"], golden(f"{case}.loss_cls"), rtol=TOLERANCE, atol=0)
    assert_close(losses["loss_box"], golden(f"{case}.loss_bbox"), rtol=TOLERANCE, atol=0)
    if gradients:
        (losses["loss_cls"] + losses["loss_box"]).backward()
    for name in gradients:
        norm = model.get_parameter(OUR_NAMES[name]).grad.norm()
        expected = golden(f"{case}.gradient.{name}")
        assert_close(norm, expected, rtol=GRADIENT_TOLERANCE, atol=0, msg=f"{name}: {norm}")
    model.zero_grad()


def losses_and_targets(model, batch):
    """A batch's losses, and the classes (N, R) and deltas (N, R, 4) that they were given."""
    classes, deltas = [], []
    hooks = [
        model.cls_loss.register_forward_pre_hook(lambda _, args: classes.append(args[1])),
        model.box_loss.register_forward_pre_hook(lambda _, args: deltas.append(args[1])),
    ]
    losses = model(batch)
    for hook in hooks:
        hook.remove()
    return losses, torch.stack(classes), deltas[0].unflatten(0, (len(batch), -1))


def check_targets(key, instances, classes, deltas):
    """An image's boxes, and what its anchors (R,) learn, are what mmdetection assigned."""
    assert torch.equal(instances.gt_boxes, golden(f"{key}.gt_boxes"))
    assert instances.gt_classes.tolist() == golden(f"{key}.gt_labels").tolist()
    is_ignored, is_background = classes == -1, classes == NUM_CLASSES
    assert [is_ignored.sum(), is_background.sum()] == golden(f"{key}.counts").tolist()
    assert zlib.crc32(is_ignored.numpy().tobytes()) == golden(f"{key}.ignored")
    positive = golden(f"{key}.positive").long()
    assert torch.equal((~is_ignored & ~is_background).nonzero().flatten(), positive)
    matched = golden(f"{key}.matched").long()
    assert torch.equal(classes[positive], instances.gt_classes[matched])
    assert_close(deltas[positive], golden(f"{key}.targets"), rtol=TOLERANCE, atol=HEAD_FLOOR)
