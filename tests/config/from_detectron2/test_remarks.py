"""What has no counterpart is told, what nobody could use is an error."""

import pytest

from detlite.config import parse_config
from detlite.config.from_detectron2 import convert_detectron2_yaml
from detlite.errors import ConfigError

CLIP_NORM = {"ENABLED": True, "CLIP_TYPE": "norm", "CLIP_VALUE": 1.0}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        (
            {"MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone"},
            ["MODEL.BACKBONE.NAME", "MODEL.FPN.IN_FEATURES", "MODEL.RESNETS.OUT_FEATURES"],
        ),
        ({"MODEL.RESNETS.STEM_OUT_CHANNELS": 32}, ["MODEL.RESNETS.STEM_OUT_CHANNELS"]),
        ({"MODEL.RESNETS.RES5_DILATION": 2}, ["MODEL.RESNETS.RES5_DILATION"]),
        ({"MODEL.RESNETS.NORM": ""}, ["MODEL.RESNETS.NORM"]),
        ({"MODEL.RESNETS.NORM": "LN"}, ["MODEL.RESNETS.NORM"]),
        ({"MODEL.RETINANET.NORM": "SyncBN"}, ["MODEL.RETINANET.NORM"]),
        ({"MODEL.RETINANET.IN_FEATURES": ["p3", "p5"]}, ["MODEL.RETINANET.IN_FEATURES"]),
        ({"MODEL.RETINANET.FOCAL_LOSS_ALPHA": -1.0}, ["MODEL.RETINANET.FOCAL_LOSS_ALPHA"]),
        ({"MODEL.RETINANET.NUM_CLASSES": 20}, ["MODEL.RETINANET.NUM_CLASSES"]),
        ({"INPUT.MIN_SIZE_TRAIN": [0, 600]}, ["INPUT.MIN_SIZE_TRAIN"]),
        ({"INPUT.FORMAT": "L"}, ["INPUT.FORMAT"]),
        ({"INPUT.CROP": {"ENABLED": True, "TYPE": "x"}}, ["INPUT.CROP.ENABLED", "INPUT.CROP.TYPE"]),
        ({"SOLVER.BIAS_LR_FACTOR": 2.0}, ["SOLVER.BIAS_LR_FACTOR"]),
        (
            {"SOLVER.WEIGHT_DECAY_BIAS": 0.1, "MODEL.FPN.NORM": "GN"},
            ["SOLVER.WEIGHT_DECAY_BIAS"],
        ),
        ({"SOLVER.WEIGHT_DECAY_BIAS": 0.1}, []),
        ({"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR"}, ["SOLVER.RESCALE_INTERVAL"]),
        (
            {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.RESCALE_INTERVAL": True},
            [],
        ),
        ({"SOLVER.RESCALE_INTERVAL": True}, ["SOLVER.RESCALE_INTERVAL"]),
        ({"SOLVER.WARMUP_METHOD": "constant"}, ["SOLVER.WARMUP_METHOD"]),
        ({"SOLVER.WARMUP_METHOD": "constant", "SOLVER.WARMUP_ITERS": 0}, []),
        ({"SOLVER.STEPS": [500, 900]}, ["SOLVER.WARMUP_ITERS"]),
        ({"SOLVER.REFERENCE_WORLD_SIZE": 8}, ["SOLVER.REFERENCE_WORLD_SIZE"]),
        (
            {"SOLVER.CLIP_GRADIENTS": CLIP_NORM},
            ["SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE"],
        ),
        ({"TEST.AUG": {"ENABLED": True, "FLIP": False}}, ["TEST.AUG.ENABLED", "TEST.AUG.FLIP"]),
        ({"MODEL.MASK_ON": True, "VIS_PERIOD": 20}, ["MODEL.MASK_ON", "VIS_PERIOD"]),
    ],
)
def test_what_has_no_counterpart_is_lost_and_said_so(convert, changes, lost):
    translation = convert(changes)
    found = [remark.key for remark in translation.remarks if remark.kind == "lost"]
    assert sorted(found) == lost
    assert translation.is_complete == (not lost)
    assert ("# Without a counterpart here:" in translation.text) == bool(lost)
    assert all(f"#   {key}: " in translation.text for key in lost)


def test_a_key_that_detectron2_does_not_know_is_listed_with_the_nearest(convert):
    (remark,) = convert({"SOLVER.BASE_LRATE": 0.1}).remarks
    assert (remark.key, remark.value, remark.kind) == ("SOLVER.BASE_LRATE", 0.1, "lost")
    assert remark.place.endswith("x.yaml:2")
    assert remark.advice.endswith("did you mean 'SOLVER.BASE_LR'?")


def test_a_data_set_of_the_user_is_a_block_to_fill_in_and_its_name_cannot_become_yaml(convert):
    name = "a\nimports: [evil.py]\x85"
    translation = convert({"DATASETS": {"TRAIN": [name], "TEST": []}, "A": [name]})
    config = parse_config(translation.text, "ours")
    assert config.data.train == [
        {
            "name": "CocoDetection",
            "json": f"FILL_IN/{name}.json",
            "images": "FILL_IN",
            "classes": None,
            "title": name,
        }
    ]
    assert config.imports == []
    assert config.data.num_classes == 80
    assert {remark.key: remark.kind for remark in translation.remarks} == {
        "A": "lost",
        "DATASETS.TRAIN": "fill in",
        "data.test": "fill in",
    }
    assert "images: FILL_IN" in translation.text
    assert all(line.endswith("# see below") for line in translation.text.splitlines()[:45]
               if "FILL_IN" in line)  # fmt: skip


@pytest.mark.parametrize("value", ["...", "{1, 2}", "1+2j", "b'x'", "{'a': (1,)}", [{"a": 1}]])
def test_a_value_of_any_kind_can_be_told(convert, value):
    (remark,) = convert({"A": value}).remarks
    assert remark.key == "A"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL.META_ARCHITECTURE": "FCOS"}, "MODEL.META_ARCHITECTURE is 'FCOS'"),
        ({"VERSION": 1}, "x.yaml:1: VERSION is 1, only 2 is translated"),
        ({"model.name": "RetinaNet"}, "this is a config of detlite already"),
        ({"SOLVER.BASE_LR": "1/2"}, "must be a finite number, as 0.001 is; got '1/2'"),
        ({"SOLVER.BASE_LR": float("nan")}, "SOLVER.BASE_LR must be a finite number"),
        ({"SOLVER.BASE_LR": 10**400}, "SOLVER.BASE_LR must be a finite number"),
        ({"SOLVER.BASE_LR": None}, "SOLVER.BASE_LR must be a finite number"),
        ({"SOLVER.STEPS": 3}, "SOLVER.STEPS must be a list (each entry a whole number)"),
        ({"SOLVER.STEPS": [3, 1]}, "SOLVER.STEPS must rise"),
        ({"SOLVER.MAX_ITER": True}, "SOLVER.MAX_ITER must be a whole number"),
        ({"SOLVER.MAX_ITER": -1}, "key 'max_iter' must be an integer >= 1"),
        ({"SOLVER.WARMUP_METHOD": "x"}, "must be linear or constant; got 'x'"),
        ({"SOLVER.CLIP_GRADIENTS": {**CLIP_NORM, "CLIP_TYPE": "x"}}, "must be value or norm"),
        ({"INPUT": 3}, "INPUT is a value in one file and a section in another"),
        ({"TEST": 3}, "TEST is a section, `TEST: {KEY: value}`; got 3"),
        ({"INPUT.RANDOM_FLIP": "x"}, "must be horizontal, vertical or none; got 'x'"),
        ({"INPUT.MIN_SIZE_TRAIN": []}, "must hold the lengths of the shorter side"),
        ({"INPUT.MIN_SIZE_TRAIN_SAMPLING": "range"}, "must be choice, or range with two sizes"),
        ({"MODEL.PIXEL_MEAN": [1.0]}, "MODEL.PIXEL_MEAN must have 3 entries"),
        ({"MODEL.RESNETS.NORM": "x"}, "must be one of '', BN, FrozenBN, GN, SyncBN; got 'x'"),
        ({"MODEL.RESNETS.DEPTH": 49}, "key 'depth' must be one of 18, 34, 50, 101, 152, got 49"),
        ({"MODEL.RESNETS.OUT_FEATURES": ["res4"]}, "lacks res3, res5, which MODEL.FPN.IN_FEAT"),
        ({"MODEL.FPN.IN_FEATURES": ["res3", "res4"]}, "must be the last stages up to res5"),
        ({"MODEL.FPN.IN_FEATURES": []}, "must be the last stages up to res5"),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": []}, "must hold one list for all levels, or 5"),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": [[1], [2]]}, "must hold one list for all levels, or 5"),
        ({"MODEL.RETINANET.BBOX_REG_LOSS_TYPE": "x"}, "must be one of smooth_l1, giou, diou"),
    ],
)
def test_a_value_that_nobody_could_use_is_an_error(convert, changes, message):
    with pytest.raises(ConfigError) as caught:
        convert(changes)
    assert message in str(caught.value)


def test_all_wrong_values_are_told_at_once(convert):
    with pytest.raises(ConfigError) as caught:
        convert({"SOLVER": {"BASE_LR": "fast", "STEPS": 3}, "INPUT": {"RANDOM_FLIP": "x"}})
    assert str(caught.value).count("\n  - ") == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {WEIGHT: a.pkl}", r"MODEL\.WEIGHT is a key of VERSION 1, only 2"),
        ("SEED: 1", r"META_ARCHITECTURE is 'GeneralizedRCNN' \(by detectron2's default\)"),
        ("", "META_ARCHITECTURE is 'GeneralizedRCNN'"),
    ],
)
def test_another_model_or_an_old_file_is_refused(write, text, message):
    with pytest.raises(ConfigError, match=message):
        convert_detectron2_yaml(write("x.yaml", text))
