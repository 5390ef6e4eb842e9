"""A detectron2 RetinaNet becomes the same RetinaNet here, and no key is dropped in silence."""

import functools
import pathlib

import pytest
import yaml
from fvcore.common.config import CfgNode
from fvcore.common.param_scheduler import StepWithFixedGammaParamScheduler

from detlite import build_model, load_config
from detlite.config import parse_config
from detlite.config.from_detectron2 import convert_detectron2_yaml
from detlite.config.from_detectron2.keys import DEFAULTS, UNREAD

CONFIGS = pathlib.Path(__file__).parents[3] / "configs" / "retinanet"

BACKBONE = """\
MODEL:
  WEIGHTS: detectron2://ImageNetPretrained/MSRA/R-{0}.pkl
  RESNETS: {{DEPTH: {0}}}
"""
LONG = "SOLVER: {STEPS: '(210000, 250000)', MAX_ITER: 270000}\n"


@functools.cache
def expected_config(recipe):
    return load_config(CONFIGS / f"{recipe}.yaml").to_dict()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (BACKBONE.format(50), "retinanet_r50_fpn_1x_coco"),
        (BACKBONE.format(50) + LONG, "retinanet_r50_fpn_3x_coco"),
        (BACKBONE.format(101) + LONG, "retinanet_r101_fpn_3x_coco"),
    ],
)
def test_the_recipes_of_detectron2_become_ours(write, recipe, text, name):
    write("Base-RetinaNet.yaml", recipe)
    path = write("COCO-Detection/x.yaml", f"_BASE_: ../Base-RetinaNet.yaml\n{text}")
    translation = convert_detectron2_yaml(path)
    found = load_config(write("ours.yaml", translation.text)).to_dict()
    for section in ("model", "data", "solver", "test"):
        assert found[section] == expected_config(name)[section]
    assert found["train"]["checkpoint_period"] == 5000
    assert translation.remarks == ()
    assert translation.text.startswith("# x.yaml with Base-RetinaNet.yaml of detectron2, transl")


def test_a_dump_of_all_keys_becomes_the_same_config_as_the_recipe(write, recipe, unchanged):
    values = CfgNode(yaml.unsafe_load(recipe))
    for key, default in {**DEFAULTS, "MODEL.RPN.NMS_THRESH": 0.7}.items():
        section = values
        *path, last = key.split(".")
        for part in path:
            section = section.setdefault(part, CfgNode())
        section.setdefault(last, default)
    translation = convert_detectron2_yaml(write("dump.yaml", values.dump()))
    assert translation.is_complete
    assert {"MODEL.RPN.NMS_THRESH", "INPUT.CROP.TYPE"} <= {r.key for r in translation.remarks}
    lines = [line for line in translation.text.splitlines() if not line.startswith("#")]
    lines.remove("device: cuda")  # which a dump states, and the file does not
    assert lines == unchanged.splitlines()


def test_what_a_file_does_not_state_is_the_default_of_detectron2(write):
    text = """\
    MODEL:
      META_ARCHITECTURE: RetinaNet
      BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
      RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
      FPN: {IN_FEATURES: [res3, res4, res5]}
    """
    translation = convert_detectron2_yaml(write("x.yaml", text))
    config = parse_config(translation.text, "ours").to_dict()
    assert config["model"]["box_loss"] == {"name": "SmoothL1Loss", "beta": 0.1, "weight": 1.0}
    assert config["model"]["anchor_generator"]["sizes"] == [[32, 64, 128, 256, 512]] * 5
    assert config["data"]["train_transforms"][0]["min_size"] == 800
    assert config["solver"]["optimizer"]["lr"] == 0.001
    assert config["solver"]["schedule"]["milestones"] == [30000]
    assert config["solver"]["max_iter"] == 40000
    assert {remark.key for remark in translation.remarks} == {"data.train", "data.test"}


# Other values than those of the recipe, where doubling or turning round the default is no answer.
OTHER = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "a.pkl",
    "MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0],
    "MODEL.PIXEL_STD": [4.0, 5.0, 6.0],
    "MODEL.BACKBONE.NAME": "build_swin",
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True],
    "MODEL.FPN.NORM": "GN",
    "MODEL.FPN.FUSE_TYPE": "avg",
    "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [1.0, 2.0],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
    "MODEL.RETINANET.IN_FEATURES": ["p3", "p5"],
    "MODEL.RETINANET.NORM": "GN",
    "MODEL.RETINANET.IOU_THRESHOLDS": [0.3, 0.6],
    "MODEL.RETINANET.IOU_LABELS": [0, 0, 1],
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "giou",
    "INPUT.FORMAT": "RGB",
    "INPUT.RANDOM_FLIP": "none",
    "INPUT.CROP.TYPE": "absolute",
    "DATASETS.TRAIN": ["mine"],
    "DATASETS.TEST": ["mine"],
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "SOLVER.WEIGHT_DECAY_BIAS": 0.5,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
    "SOLVER.STEPS": [1, 2],
    "SOLVER.WARMUP_METHOD": "constant",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "TEST.EXPECTED_RESULTS": [["bbox", "AP", 38.5, 0.2]],
    "OUTPUT_DIR": "elsewhere",
    "FLOAT32_PRECISION": "high",
    "SEED": 3,
}
# Any other value of these is an error, see test_remarks.py.
FIXED = {
    "MODEL.META_ARCHITECTURE",
    "MODEL.RESNETS.OUT_FEATURES",
    "MODEL.FPN.IN_FEATURES",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "VERSION",
}


def another(key):
    default = DEFAULTS[key]
    if key in OTHER:
        return OTHER[key]
    if isinstance(default, bool):
        return not default
    if isinstance(default, list):
        return [1, *default]
    return default / 2 if isinstance(default, float) and default else default + 1


@pytest.mark.parametrize("key", [key for key in DEFAULTS if key not in FIXED])
def test_every_key_that_has_an_effect_there_has_one_here_or_is_listed(convert, unchanged, key):
    translation = convert({key: another(key)})
    values = [line for line in translation.text.splitlines() if not line.startswith("#")]
    arrived = values != unchanged.splitlines()
    assert arrived or key in {remark.key for remark in translation.remarks}


def test_keys_that_a_retinanet_does_not_read_are_listed_as_such(convert, unchanged):
    keys = {group if "_FILES" in group or "TOPK" in group else f"{group}.NAME" for group in UNREAD}
    translation = convert({key: ["x"] for key in keys})
    assert {remark.key: remark.kind for remark in translation.remarks} == dict.fromkeys(
        keys, "no loss"
    )
    assert translation.text.partition("\n")[2].startswith(unchanged)


RANGE = {"INPUT.MIN_SIZE_TRAIN": [640, 643], "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range"}
REPEATED = {
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.3,
}
COARSE = {
    "MODEL.RETINANET.IN_FEATURES": ["p4", "p5", "p6", "p7"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[64], [128], [256], [512]],
}
COSINE = {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.BASE_LR_END": 0.001}
SIZES = "MODEL.ANCHOR_GENERATOR.SIZES"
ANCHORS = "model.anchor_generator"


@pytest.mark.parametrize(
    ("changes", "place", "expected"),
    [
        ({"MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0]}, "model.preprocessor.mean", [3, 2, 1]),
        (
            {"MODEL.PIXEL_MEAN": [1.0, 2.0, 3.0], "INPUT.FORMAT": "RGB"},
            "model.preprocessor.mean",
            [1, 2, 3],
        ),
        ({"MODEL.PIXEL_STD": [4.0, 5.0, 6.0]}, "model.preprocessor.std", [6, 5, 4]),
        ({"MODEL.BACKBONE.FREEZE_AT": -1}, "model.backbone.freeze_at", 0),
        ({"MODEL.RESNETS.NORM": "nnSyncBN"}, "model.backbone.norm", "SyncBN"),
        ({"MODEL.RESNETS.NUM_GROUPS": 32}, "model.backbone.groups", 32),
        ({"MODEL.RESNETS.WIDTH_PER_GROUP": 8}, "model.backbone.width_per_group", 8),
        (COARSE, "model.backbone.out_features", ["res4", "res5"]),
        (COARSE, f"{ANCHORS}.base_size", 4),
        ({SIZES: [[16], [32], [64], [128], [256]]}, f"{ANCHORS}.base_size", 2),
        ({SIZES: [[16], [32], [64], [128], [257]]}, f"{ANCHORS}.sizes.4", [257]),
        ({SIZES: [32.0, 64.0]}, f"{ANCHORS}.sizes.4", [32, 64]),
        ({SIZES: [[32, 64]]}, f"{ANCHORS}.sizes.0", [32, 64]),
        ({"MODEL.ANCHOR_GENERATOR.OFFSET": 0.5}, f"{ANCHORS}.offset", 0.5),
        (
            {"MODEL.RETINANET.IOU_THRESHOLDS": [0.3, 0.6]},
            "model.matcher.background_thresh",
            0.3,
        ),
        ({"MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.1}, "model.box_loss.beta", 0.1),
        ({"MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "ciou"}, "model.box_loss.name", "CIoULoss"),
        (RANGE, "data.train_transforms.0.min_size", [640, 641, 642, 643]),
        ({"INPUT.RANDOM_FLIP": "vertical"}, "data.train_transforms.1.name", "RandomVerticalFlip"),
        ({"INPUT.MIN_SIZE_TEST": 0}, "data.test_transforms", []),
        ({"DATALOADER.FILTER_EMPTY_ANNOTATIONS": False}, "data.keep_empty_images", True),
        (REPEATED, "data.sampler.threshold", 0.3),
        ({"DATASETS.TEST": ["coco_2014_minival"]}, "data.test.0.images", "coco/val2014"),
        ({"DATASETS.TEST": ["voc_2007_test"]}, "data.test.0.one_based", True),
        ({"DATASETS.TEST": ["voc_2007_test"]}, "test.evaluators.0.method", "11point"),
        ({"DATASETS.TEST": ["voc_2012_val"]}, "test.evaluators.0.method", "area"),
        ({"SOLVER.NESTEROV": True}, "solver.optimizer.nesterov", True),
        ({"SOLVER.WEIGHT_DECAY_NORM": None}, "solver.weight_decay_norm", None),
        (COSINE, "solver.schedule.end_factor", 0.1),
        ({"SOLVER.STEPS": [9000, 95000]}, "solver.schedule.milestones", [9000]),
        (
            {"SOLVER.CLIP_GRADIENTS": {"ENABLED": True, "CLIP_VALUE": 0.5}},
            "solver.clip_gradients.value",
            0.5,
        ),
        ({"SOLVER.AMP.ENABLED": True}, "train.precision", "fp16"),
        ({"SOLVER.AMP.ENABLED": True}, "test.precision", "fp32"),
        ({}, "train.precision", "fp32"),
        ({"MODEL.DEVICE": "cuda:1"}, "device", "auto"),
    ],
)
def test_a_key_arrives_at_its_place(convert, changes, place, expected):
    value = parse_config(convert(changes).text, "ours").to_dict()
    for part in place.split("."):
        value = value[int(part) if isinstance(value, list) else part]
    assert value == (expected if expected is None else pytest.approx(expected))


def test_rates_that_fall_in_equal_parts_fall_where_fvcore_lets_them(convert):
    translation = convert(
        {"SOLVER.LR_SCHEDULER_NAME": "WarmupStepWithFixedGammaLR", "SOLVER.MAX_ITER": 5001}
    )
    fvcores = StepWithFixedGammaParamScheduler(
        base_value=1.0, num_decays=3, gamma=0.1, num_updates=5001
    )
    rates = [fvcores(i / 5001) for i in range(5001)]
    falls = [i for i in range(1, 5001) if rates[i] < rates[i - 1]]
    assert parse_config(translation.text, "ours").solver.schedule.milestones == falls


@pytest.mark.parametrize(
    "changes",
    [
        {
            "MODEL.RESNETS": {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "NORM": "GN"},
            "MODEL.FPN": {"OUT_CHANNELS": 32, "NORM": "GN"},
            "MODEL.RETINANET": {"NORM": "GN", "IN_FEATURES": ["p3", "p4", "p5"]},
            SIZES: [[32, 64]],
        },
        {"MODEL.BACKBONE.NAME": "build_swin", "MODEL.FPN.IN_FEATURES": ["stage3"]},
    ],
)
def test_a_translation_can_be_built(convert, changes):
    build_model(parse_config(convert(changes).text, "ours"), ["a", "b"])


@pytest.mark.parametrize("part", ["RESNETS", "FPN", "RETINANET"])
@pytest.mark.parametrize(("norm", "independent"), [("FrozenBN", True), ("GN", False)])
def test_padding_counts_as_image_where_group_norms_are_trained(convert, part, norm, independent):
    text = convert({f"MODEL.{part}.NORM": norm}).text
    assert parse_config(text, "ours").model.independent_images is independent


def test_lines_are_short_and_blocks_stand_in_one(convert):
    lines = convert({**RANGE, "INPUT.MIN_SIZE_TRAIN": [400, 800]}).text.splitlines()
    assert max(len(line) for line in lines) <= 120
    assert "  cls_loss: {name: SigmoidFocalLoss, alpha: 0.25, gamma: 2.0}" in lines
