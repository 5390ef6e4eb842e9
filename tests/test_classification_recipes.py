"""The recipes of configs/classification for ImageNet say what torchvision's training does.

What torchvision's references/classification/{train,presets,sampler}.py do is written here as data,
with the arguments of the published commands; its weights say accuracies and tests themselves.
"""

import functools
import re
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from torch.optim import lr_scheduler as torchs
from torchvision.ops._utils import split_normalization_params
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.functional import to_pil_image

from detlite import load_config
from detlite.data import build_transforms
from detlite.data.batch_transforms import BATCH_TRANSFORM_REGISTRY
from detlite.modeling import build_meta_arch
from detlite.solver import build_optimizer, build_schedule

FOLDER = Path(__file__).parents[1] / "configs/classification"
V1 = {"epochs": 90, "steps": 5005, "images": 256, "lr": 0.1, "weight_decay": 1e-4}
V2 = {"epochs": 600, "steps": 1251, "images": 1024, "lr": 0.5, "weight_decay": 2e-5}
V2 |= {"train_crop": 176, "resize": 232, "repeats": 4}
# Published for ResNet-101 with an older form: no --train-crop-size and no --ra-sampler.
OLDER_V2 = V2 | {"steps": 1252, "train_crop": 224, "repeats": 1}
RECIPES = {f"resnet{depth}_imagenet_v1": (depth, V1) for depth in (18, 34, 50, 101)}
RECIPES |= {f"resnet{depth}_imagenet_v2": (depth, V2) for depth in (18, 34, 50)}
RECIPES |= {"resnet101_imagenet_v2": (101, OLDER_V2)}
every_recipe = pytest.mark.parametrize("name", RECIPES)


@functools.cache
def config_of(name):
    return load_config(FOLDER / f"{name}.yaml")


@functools.cache
def model_of(name):
    """The model without memory."""
    with torch.device("meta"):
        return build_meta_arch(config_of(name).model, [str(k) for k in range(1000)])


def torchvision_model(name):
    with torch.device("meta"):
        return getattr(torchvision.models, f"resnet{RECIPES[name][0]}")()


def weights_of(name):
    """The published weights of a recipe; None where there are none."""
    weights = getattr(torchvision.models, f"ResNet{RECIPES[name][0]}_Weights")
    return getattr(weights, f"IMAGENET1K_{name[-2:].upper()}", None)


def is_v2(name):
    return name.endswith("v2")


def test_every_recipe_for_imagenet_is_known():
    assert sorted(RECIPES) == sorted(path.stem for path in FOLDER.glob("*imagenet*.yaml"))


def torchvision_rates(name):
    """The rate of each epoch, by torchvision's schedulers, stepped after each."""
    recipe = RECIPES[name][1]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe["lr"])
    if is_v2(name):
        warm_up = torchs.LinearLR(optimizer, start_factor=0.01, total_iters=5)
        cosine = torchs.CosineAnnealingLR(optimizer, T_max=600 - 5, eta_min=0.0)
        schedule = torchs.SequentialLR(optimizer, [warm_up, cosine], milestones=[5])
    else:
        schedule = torchs.StepLR(optimizer, step_size=30, gamma=0.1)
    rates = []
    with warnings.catch_warnings():
        # SequentialLR steps to 0 by an argument that torch has deprecated.
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.optim")
        for _ in range(recipe["epochs"]):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    return rates


@every_recipe
def test_the_learning_rate_is_torchvisions_in_every_epoch_from_its_first_to_its_last_step(name):
    solver, recipe = config_of(name).solver, RECIPES[name][1]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=solver.optimizer.lr)
    schedule = build_schedule(solver.schedule, optimizer, solver.max_iter)
    steps = recipe["steps"]
    assert solver.max_iter == recipe["epochs"] * steps
    for epoch, rate in enumerate(torchvision_rates(name)):
        for iteration in (epoch * steps, epoch * steps + steps // 2, (epoch + 1) * steps - 1):
            schedule.last_epoch = iteration
            assert schedule.get_lr() == [pytest.approx(rate, rel=1e-9, abs=1e-12)], iteration


def test_an_epoch_is_as_long_as_torchvisions_samplers_make_it():
    images = 1_281_167
    distributed = -(-images // 8)  # DistributedSampler: all images, padded to 8 GPUs
    assert V1["steps"] == -(-distributed // 32)
    assert OLDER_V2["steps"] == -(-distributed // 128)
    assert V2["steps"] == images // 256 * 256 // 8 // 128  # RASampler


@every_recipe
def test_the_optimizer_has_torchvisions_groups(name):
    config, recipe, theirs = config_of(name), RECIPES[name][1], torchvision_model(name)
    solver, ours = config.solver, model_of(name)
    optimizer = build_optimizer(
        solver.optimizer,
        ours,
        weight_decay_norm=solver.weight_decay_norm,
        weight_decay_bias=solver.weight_decay_bias,
    )
    if is_v2(name):
        norms, others = split_normalization_params(theirs)
        groups = {0.0: norms, recipe["weight_decay"]: others}
    else:
        groups = {recipe["weight_decay"]: list(theirs.parameters())}
    expected = {decay: sorted(tuple(p.shape) for p in group) for decay, group in groups.items()}
    found = {
        group["weight_decay"]: sorted(tuple(p.shape) for p in group["params"])
        for group in optimizer.param_groups
    }
    assert len(optimizer.param_groups) == len(groups)
    assert found == expected
    assert isinstance(optimizer, torch.optim.SGD)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, False, 0)
        assert group["lr"] == recipe["lr"]
    assert (solver.clip_gradients.norm, solver.clip_gradients.value) == (None, None)
    assert config.train.precision == "fp32"


@every_recipe
def test_batch_loss_and_order_are_torchvisions(name):
    config, recipe = config_of(name), RECIPES[name][1]
    assert config.data.batch_size == config.solver.reference_batch_size == recipe["images"]
    assert config.data.aspect_ratio_grouping is False
    loss = model_of(name).loss
    assert type(loss).__name__ == "CrossEntropyLoss"
    assert loss.label_smoothing == (0.1 if is_v2(name) else 0.0)
    assert model_of(name).dropout.p == 0.0
    repeats = recipe.get("repeats", 1)
    sampler = {"name": "ShuffleSampler"}
    if repeats > 1:
        sampler = {"name": "RepeatedAugmentSampler", "repeats": repeats}
    assert dict(config.data.sampler) == sampler


def read_off(transforms):
    """Each transform's class and what it was made with."""
    names = ("size", "scale", "ratio", "p", "value", "interpolation", "antialias", "fill")
    return [
        (type(t).__name__, {key: plain(getattr(t, key)) for key in names if hasattr(t, key)})
        for t in transforms
    ]


def plain(value):
    if isinstance(value, dict):  # TrivialAugmentWide's fill, by type of input
        return None if set(value.values()) <= {None} else value
    if isinstance(value, InterpolationMode):
        return value.value
    return list(value) if isinstance(value, list | tuple) else value


BILINEAR = {"interpolation": "bilinear"}


@every_recipe
def test_training_augmentation_is_the_list_of_classification_preset_train(name):
    """With --auto-augment ta_wide --random-erase 0.1 in the second recipe."""
    crop = RECIPES[name][1].get("train_crop", 224)
    expected = [
        (
            "RandomResizedCrop",
            {"size": [crop, crop], "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3], **BILINEAR}
            | {"antialias": True},  # as Pillow's images always are
        ),
        ("RandomHorizontalFlip", {"p": 0.5}),
    ]
    if is_v2(name):
        mean = [round(255 * value) for value in (0.485, 0.456, 0.406)]
        expected += [
            ("TrivialAugmentWide", {**BILINEAR, "fill": None}),
            (
                "RandomErasing",
                {"p": 0.1, "scale": [0.02, 0.33], "ratio": [0.3, 3.3], "value": mean},
            ),
        ]
    transforms = build_transforms(config_of(name).data.train_transforms)
    assert read_off(transforms) == expected
    assert all(t.num_magnitude_bins == 31 for t in transforms if hasattr(t, "num_magnitude_bins"))


@every_recipe
def test_test_images_are_those_of_classification_preset_eval_and_of_the_weights(name):
    resize = RECIPES[name][1].get("resize", 256)
    transforms = build_transforms(config_of(name).data.test_transforms)
    assert read_off(transforms) == [
        ("Resize", {"size": [resize], **BILINEAR, "antialias": True}),
        ("CenterCrop", {"size": [224, 224]}),
    ]
    if weights_of(name) is None:
        return
    preset = weights_of(name).transforms()
    assert (preset.resize_size, preset.crop_size) == ([resize], [224])
    photo = torch.randint(256, (3, 300, 400), generator=torch.Generator().manual_seed(0))
    photo = photo.to(torch.uint8)
    found = normalizer(name)([v2.Compose(transforms)(photo)]).tensor[0]
    # Pillow's pixels, as there; a few of them are rounded to the next of 256 levels.
    levels = 255 * 0.229 * (found - preset(to_pil_image(photo))).abs()
    assert levels.max() < 1.03
    assert (levels > 0.5).float().mean() < 0.01


def normalizer(name):
    block = config_of(name).model | {"backbone": {"name": "ResNet", "depth": 18}}
    return build_meta_arch(block, ["cat"]).preprocessor


@every_recipe
def test_mixup_and_cutmix_are_chosen_from_as_in_train_py(name):
    blocks = config_of(name).data.batch_transforms
    if not is_v2(name):
        assert blocks == []
        return
    [choice] = [BATCH_TRANSFORM_REGISTRY.build(block, num_classes=1000) for block in blocks]
    mixes = [each.transform for each in choice.transforms]
    assert [(type(t), t.alpha, t.num_classes) for t in mixes] == [
        (v2.MixUp, 0.2, 1000),
        (v2.CutMix, 1.0, 1000),
    ]
    assert choice.weights.tolist() == [1.0, 1.0]


@every_recipe
def test_the_moving_average_is_torchvisions(name):
    ema, recipe = config_of(name).train.ema, RECIPES[name][1]
    if not is_v2(name):
        assert ema.decay == 0.0
        return
    adjust = 1024 * 32 / 600  # world_size * batch_size * model_ema_steps / epochs
    assert ema.decay == pytest.approx(1.0 - (1.0 - 0.99998) * adjust, abs=1e-12)
    assert (ema.period, ema.start, ema.warmup) == (32, 5 * recipe["steps"], 0)


@every_recipe
def test_the_network_is_torchvisions(name):
    def shapes(model):
        return sorted(tuple(p.shape) for p in model.parameters() if p.requires_grad)

    assert shapes(model_of(name)) == shapes(torchvision_model(name))


@every_recipe
def test_the_first_comment_says_how_to_train_and_what_torchvision_publishes(name):
    comment = (FOLDER / f"{name}.yaml").read_text().split("_base_:")[0]
    command = "# python tools/train_net.py --config-file"
    assert comment.startswith(f"{command} configs/classification/{name}.yaml\n")
    assert "Not trained here." in comment
    weights = weights_of(name)
    if weights is None:
        assert "no top-1 of it is published" in comment
        return
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert f"{accuracy:.3f} % top-1 on ImageNet val (meta of {weights})" in comment
    assert f"--eval-only --weights torchvision://{weights}\n" in comment
    assert weights.meta["recipe"].removeprefix("https://") in comment


def test_the_readme_has_a_row_for_every_recipe_with_the_accuracy_and_the_weights():
    rows = {}
    for line in (FOLDER / "README.md").read_text().splitlines():
        if match := re.match(r"\| \[(\w+)\]\((\w+)\.yaml\) \| (\S+) \| (\S+) \|$", line):
            assert match[1] == match[2]
            rows[match[1]] = match.group(3, 4)
    expected = dict.fromkeys(RECIPES, ("none", "none"))
    for name in RECIPES:
        if (weights := weights_of(name)) is not None:
            accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            expected[name] = (f"{accuracy:.3f}", f"`torchvision://{weights}`")
    assert rows == expected


def test_the_tests_that_the_readme_names_exist():
    named = set(re.findall(r"tests/[\w/]+\.py", (FOLDER / "README.md").read_text()))
    assert len(named) == 2
    assert not [path for path in named if not (FOLDER.parents[1] / path).is_file()]
