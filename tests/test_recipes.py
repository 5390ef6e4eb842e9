"""The recipes of configs/retinanet say what their peers do, key by key.

What the peers do is written as data in recipes_of_peers.yaml, with the places it was read from.
"""

import functools
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
import torchvision.models.detection as tv
import yaml
from torch.optim.lr_scheduler import LambdaLR, LinearLR
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import _default_anchorgen
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops._utils import split_normalization_params

from detlite import ANCHOR_GENERATOR_REGISTRY, load_config
from detlite.modeling import build_meta_arch
from detlite.modeling.layers import FrozenBatchNorm2d
from detlite.solver import SCHEDULE_REGISTRY, build_optimizer
from detlite.utils.file_io import published_url

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs/retinanet"
FACTS = yaml.safe_load((Path(__file__).parent / "recipes_of_peers.yaml").read_text())
RECIPES = FACTS["recipes"]
SECTIONS = ("model", "data", "solver", "train.precision", "train.channels_last", "train.ema")
IMAGES_WITH_BOXES = 117_266  # of COCO train2017
V1 = "retinanet_r50_fpn_coco_torchvision_v1"
V2 = "retinanet_r50_fpn_coco_torchvision_v2"


@functools.cache
def config_of(name):
    return load_config(FOLDER / f"{name}.yaml")


@functools.cache
def model_of(name, num_classes=80):
    """The model without memory: its parameters have shapes and no values."""
    with torch.device("meta"):
        return build_meta_arch(config_of(name).model, [str(i) for i in range(num_classes)])


def leaves(value, path=""):
    """Every value of a config by its dotted key; a list of numbers or names is one value."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value}
    found = {}
    for key, entry in value.items():
        found |= leaves(entry, f"{path}.{key}" if path else str(key))
    return found


def resolved(name):
    found = leaves(config_of(name).to_dict())
    return {key: value for key, value in found.items() if key not in FACTS["free"]}


def expected(name):
    recipe = RECIPES[name]
    column = FACTS["peers"].index(recipe["peer"])
    facts = FACTS["same"] | {key: row[column] for key, row in FACTS["differs"].items()}
    for key, value in facts.items():
        if value == "own":
            facts[key] = recipe["sizes"][key.endswith("max_size")]
        elif value == "640 to 1024":
            facts[key] = list(range(640, 1025))
    facts["model.weights"] = recipe["backbone"]
    facts["model.backbone.depth"] = recipe["depth"]
    *falls, end = iterations_of(recipe)
    facts["solver.schedule.milestones"], facts["solver.max_iter"] = falls, end
    return {key: value for key, value in facts.items() if value != "absent"}


def iterations_of(recipe):
    """Falls of the rate and end of training.

    An epoch has as many batches of 2 as the peer's sampler makes on each of 8 GPUs.
    """
    if "iterations" in recipe:
        return recipe["iterations"]
    images = math.ceil(IMAGES_WITH_BOXES / 8)
    # mmdetection keeps a last batch that is not full, torchvision does not.
    batches = math.ceil(images / 2) if recipe["peer"] == "mmdet" else images // 2
    return [epoch * batches for epoch in recipe["epochs"]]


def test_every_recipe_is_one_of_a_peer_that_is_known():
    assert sorted(RECIPES) == sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_resolved_keys_are_the_peers(name):
    found, facts = resolved(name), expected(name)
    wrong = {
        key: f"the peer has {value!r}, the recipe {found.get(key, 'nothing')!r}"
        for key, value in facts.items()
        if found.get(key, "nothing") != value
    }
    assert not wrong
    unknown = [key for key in found if key.startswith(SECTIONS) and key not in facts]
    assert not unknown, "a key that changes what is computed and that no peer's fact is known of"


def warm_up(peer):
    """The factors of the first 1,100 iterations, from torch's schedules with the peer's values."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    linear = {
        "detectron2": (0.001, 1000),
        "torchvision_v1": (0.001, 1000),
        "torchvision_v2": (0.001, 1000),
        "mmdet": (0.001, 500 - 0 - 1),  # mmengine's LinearLR: end - begin - 1 steps
        "paper": (1 / 3, 500),
    }
    if peer == "odtk":
        schedule = LambdaLR(optimizer, lambda i: 0.9 * i / 1000 + 0.1 if i <= 1000 else 1.0)
    else:
        start, steps = linear[peer]
        schedule = LinearLR(optimizer, start_factor=start, total_iters=steps)
    factors = []
    for _ in range(1100):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return factors


@pytest.mark.parametrize("peer", FACTS["peers"])
def test_the_learning_rate_is_the_peers_at_every_iteration(peer):
    factors = warm_up(peer)
    for name in (n for n, recipe in RECIPES.items() if recipe["peer"] == peer):
        config = config_of(name)
        base = FACTS["differs"]["solver.optimizer.lr"][FACTS["peers"].index(peer)]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
        schedule = SCHEDULE_REGISTRY.build(config.solver.schedule, optimizer=optimizer)
        first, second, end = iterations_of(RECIPES[name])
        later = [(1100, 1.0), (first - 1, 1.0), (first, 0.1), (second - 1, 0.1)]
        later += [(second, 0.01), (end - 1, 0.01)]
        for iteration, factor in [*enumerate(factors), *later]:
            schedule.last_epoch = iteration
            assert schedule.get_lr() == [pytest.approx(base * factor, rel=1e-9)], iteration


def weight_decays(name):
    """The weight decay of every trained parameter, by name."""
    solver, model = config_of(name).solver, model_of(name)
    optimizer = build_optimizer(
        solver.optimizer,
        model,
        weight_decay_norm=solver.weight_decay_norm,
        weight_decay_bias=solver.weight_decay_bias,
    )
    names = {parameter: key for key, parameter in model.named_parameters()}
    return {names[p]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}


STEM, RES2 = "backbone.stem.conv1.weight", "backbone.res2.0.conv1.weight"
RES3, RES3_NORM = "backbone.res3.0.conv1.weight", "backbone.res3.0.conv1.norm.weight"
BIAS, HEAD_NORM = "neck.laterals.p3.bias", "head.cls_subnet.0.norm.weight"


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("retinanet_r50_fpn_1x_coco", {RES3: 1e-4, BIAS: 1e-4}),
        (V1, {RES3: 1e-4, BIAS: 1e-4}),
        (V2, {RES3: 0.05, RES3_NORM: 0.0, BIAS: 0.05, HEAD_NORM: 0.0}),
        ("retinanet_r50_fpn_1x_coco_mmdet", {RES3: 1e-4, RES3_NORM: 1e-4, BIAS: 1e-4}),
        ("retinanet_r50_fpn_coco_odtk", {STEM: 1e-4, RES2: 1e-4, RES3: 1e-4, BIAS: 1e-4}),
        ("retinanet_r50_fpn_800_coco_paper", {RES3: 1e-4, BIAS: 1e-4}),
    ],
)
def test_the_trained_parameters_and_their_weight_decay_are_the_peers(name, trained):
    decays = weight_decays(name)
    asked = (STEM, RES2, RES3, RES3_NORM, BIAS, HEAD_NORM)
    assert {key: decays[key] for key in asked if key in decays} == trained
    assert set(decays.values()) == set(trained.values())


def torchvision_model(name):
    """Torchvision's model with what its reference trains: layers 2 to 4 of the backbone."""
    with torch.device("meta"):
        build = tv.retinanet_resnet50_fpn if name == V1 else tv.retinanet_resnet50_fpn_v2
        model = build(weights=None, weights_backbone=None)
    for key, parameter in model.backbone.body.named_parameters():
        is_norm = ".bn" in key or "downsample.1" in key
        frozen = key.startswith(("conv1", "bn1", "layer1")) or (name == V1 and is_norm)
        parameter.requires_grad_(not frozen)
    return model


@pytest.mark.parametrize("name", [V1, V2])
def test_as_many_parameters_get_each_weight_decay_as_in_torchvision(name):
    norms, others = split_normalization_params(torchvision_model(name))
    model = model_of(name, num_classes=91)
    decays = {"norms": 0, "others": 0}
    for module in model.modules():
        norm = isinstance(module, torch.nn.BatchNorm2d | torch.nn.GroupNorm)
        for parameter in module.parameters(recurse=False):
            decays["norms" if norm else "others"] += parameter.numel() * parameter.requires_grad
    assert decays == {
        "norms": sum(p.numel() for p in norms if p.requires_grad),
        "others": sum(p.numel() for p in others if p.requires_grad),
    }


@pytest.mark.parametrize(
    ("name", "weights"),
    [(V1, tv.RetinaNet_ResNet50_FPN_Weights), (V2, tv.RetinaNet_ResNet50_FPN_V2_Weights)],
)
def test_size_and_ap_are_those_of_torchvisions_weights(name, weights):
    meta = weights.COCO_V1.meta
    model = model_of(name, num_classes=91)
    frozen = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)] if name == V2 else []
    count = sum(p.numel() for p in model.parameters())
    assert count + sum(2 * m.weight.numel() for m in frozen) == meta["num_params"]
    assert RECIPES[name]["ap"] == meta["_metrics"]["COCO-val2017"]["box_map"]


@pytest.mark.parametrize("name", [V1, V2])
def test_anchors_are_torchvisions(name):
    block, strides = config_of(name).model.anchor_generator, [8, 16, 32, 64, 128]
    generator = ANCHOR_GENERATOR_REGISTRY.build(block, strides=strides)
    for level, cell_anchors in enumerate(_default_anchorgen().cell_anchors):
        assert getattr(generator, f"cell_anchors_{level}").tolist() == cell_anchors.tolist()


@pytest.mark.parametrize("name", [V1, V2])
def test_thresholds_and_sizes_are_the_defaults_of_torchvisions_constructors(name):
    found = resolved(name)
    signature = inspect.signature(TorchvisionRetinaNet).parameters
    for theirs, ours in {
        "min_size": "data.test_transforms.0.min_size",
        "max_size": "data.test_transforms.0.max_size",
        "score_thresh": "model.postprocessor.score_thresh",
        "nms_thresh": "model.postprocessor.nms_thresh",
        "detections_per_img": "model.postprocessor.max_detections",
        "topk_candidates": "model.postprocessor.topk_per_level",
        "fg_iou_thresh": "model.matcher.foreground_thresh",
        "bg_iou_thresh": "model.matcher.background_thresh",
    }.items():
        assert found[ours] == signature[theirs].default, theirs
    divisor = inspect.signature(GeneralizedRCNNTransform).parameters["size_divisible"].default
    assert found["model.preprocessor.size_divisor"] == divisor
    transform = torchvision_model(name).transform
    for ours, theirs in (("mean", transform.image_mean), ("std", transform.image_std)):
        assert found[f"model.preprocessor.{ours}"] == pytest.approx([255 * x for x in theirs])


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_comment_says_how_to_train_whose_it_is_and_what_was_published(name):
    comment = (FOLDER / f"{name}.yaml").read_text().split("_base_:")[0]
    recipe = RECIPES[name]
    command = "# python tools/train_net.py --config-file"
    assert comment.startswith(f"{command} configs/retinanet/{name}.yaml\n")
    assert f": {recipe['ap']} box AP on COCO {recipe['split']}" in comment
    assert "Not trained here" in comment
    assert recipe["detector"] is None or f"--eval-only --weights {recipe['detector']}\n" in comment
    assert (recipe["split"] == "test-dev") == ("not\n# verified" in comment)


@pytest.mark.parametrize("kind", ["backbone", "detector"])
def test_the_weights_have_an_address(kind):
    names = {recipe[kind] for recipe in RECIPES.values()} - {None}
    assert all(published_url(name).startswith("https://") for name in names)


def readme_rows():
    """The cells of the table's rows by recipe."""
    lines = (FOLDER / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    found = [(re.fullmatch(r"\[(\w+)\]\((\w+)\.yaml\)", row[0]), row[1:]) for row in rows]
    return [(link.groups(), cells) for link, cells in found if link]


def test_the_readme_has_a_row_for_every_recipe_with_the_ap_and_the_weights():
    rows = readme_rows()
    assert sorted(name for (name, _), _ in rows) == sorted(RECIPES)
    for (name, target), (_, ap, split, weights, _) in rows:
        recipe = RECIPES[name]
        assert target == name
        assert (ap.rstrip("*"), split) == (str(recipe["ap"]), recipe["split"]), name
        assert ap.endswith("*") == (recipe["peer"] == "paper"), name
        assert weights == (f"`{recipe['detector']}`" if recipe["detector"] else "none"), name


def test_the_tests_that_the_readme_names_exist():
    named = set(re.findall(r"tests/[\w/]+\.(?:py|yaml)", (FOLDER / "README.md").read_text()))
    assert "tests/test_recipes.py" in named
    assert not [path for path in named if not (ROOT / path).is_file()]
