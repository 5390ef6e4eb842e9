"""The model section: detectron2's RetinaNet in our blocks."""

import math
from typing import Any

from .backbone import Pyramid, backbone_block, neck_block, norm_name, pyramid_of
from .settings import Settings

SCALE_CLAMP = math.log(1000 / 16)
# Below it detectron2's smooth L1 is the plain absolute difference.
LEAST_BETA = 1e-5
# Anchors are float32; sizes that agree closer than this are the same.
SAME_SIZE = 1e-8

_NORMS = ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM", "MODEL.RETINANET.NORM")


def model_section(s: Settings) -> dict[str, Any]:
    """The meta-arch's block."""
    pyramid = pyramid_of(s)
    return {
        "name": "RetinaNet",
        "weights": s.get("MODEL.WEIGHTS"),
        "backbone": backbone_block(s, pyramid),
        "neck": neck_block(s, pyramid),
        "anchor_generator": _anchor_generator(s, pyramid.strides),
        "head": _head(s),
        "matcher": _matcher(s),
        "box_coder": {
            "name": "DeltaBoxCoder",
            "weights": _of_length(s, "MODEL.RETINANET.BBOX_REG_WEIGHTS", 4),
            "scale_clamp": SCALE_CLAMP,
        },
        "cls_loss": _cls_loss(s),
        "box_loss": _box_loss(s),
        "loss_normalizer": {"name": "MovingAverageNormalizer", "momentum": 0.9, "initial": 100},
        # There padding counts as image, which only a GroupNorm in training makes a difference of:
        # it tests images one by one.
        **({"independent_images": False} if _has_group_norms(s) else {}),
        "preprocessor": _preprocessor(s, pyramid),
        "postprocessor": {
            "name": "NMSPostprocessor",
            "score_thresh": s.get("MODEL.RETINANET.SCORE_THRESH_TEST"),
            "topk_per_level": s.get("MODEL.RETINANET.TOPK_CANDIDATES_TEST"),
            "nms_thresh": s.get("MODEL.RETINANET.NMS_THRESH_TEST"),
            "max_detections": s.get("TEST.DETECTIONS_PER_IMAGE"),
            "clip_before_nms": False,
            "drop_empty": True,
        },
    }


def has_trained_norms(s: Settings) -> bool:
    """Whether any normalization has a scale and a shift that are trained."""
    return any(s.get(key) not in (None, "", "FrozenBN") for key in _NORMS)


def _has_group_norms(s: Settings) -> bool:
    return any(s.get(key) == "GN" for key in _NORMS)


def _anchor_generator(s: Settings, strides: list[int]) -> dict[str, Any]:
    name, angles = "MODEL.ANCHOR_GENERATOR.NAME", "MODEL.ANCHOR_GENERATOR.ANGLES"
    if s.get(name) != "DefaultAnchorGenerator":
        s.lost(name, "only DefaultAnchorGenerator is translated; another is a project's", (angles,))
    else:
        s.no_loss(angles, because="only for anchors that are turned")
    key = "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"
    ratios = _by_level(s, key, len(strides))
    if any(level != ratios[0] for level in ratios):
        s.lost(key, "all levels have the same ratios here, those of the first")
    return {
        "name": "GridAnchorGenerator",
        **_sizes(_by_level(s, "MODEL.ANCHOR_GENERATOR.SIZES", len(strides)), strides),
        "aspect_ratios": ratios[0],
        "offset": s.get("MODEL.ANCHOR_GENERATOR.OFFSET"),
        "order": "size_major",
    }


def _by_level(s: Settings, key: str, num_levels: int) -> list[list[float]]:
    levels: list[list[float]] = s.get(key)
    levels = levels * num_levels if len(levels) == 1 else levels
    if len(levels) != num_levels or not levels[0] or len({len(level) for level in levels}) > 1:
        s.problem(
            key, f"must hold one list for all levels, or {num_levels}, one a level, of equal length"
        )
        return [[1.0]] * num_levels
    return levels


def _sizes(levels: list[list[float]], strides: list[int]) -> dict[str, Any]:
    """Anchor sizes as octaves of the strides if that is what they are, else as they stand."""
    scales = len(levels[0])
    base_size = levels[0][0] / strides[0]
    octaves = all(
        math.isclose(size, base_size * stride * 2 ** (i / scales), rel_tol=SAME_SIZE)
        for level, stride in zip(levels, strides, strict=True)
        for i, size in enumerate(level)
    )
    if not octaves:
        return {"sizes": levels}
    whole = base_size == int(base_size)
    return {"base_size": int(base_size) if whole else base_size, "scales_per_octave": scales}


def _head(s: Settings) -> dict[str, Any]:
    key = "MODEL.RETINANET.NORM"
    norm = norm_name(s, key)
    if norm in ("BN", "SyncBN"):
        s.lost(
            key, "there each level has norms of its own, and convolutions keep their biases; here "
            "levels share them. projects/sepbn_head has a head as there",
        )  # fmt: skip
    elif norm:
        s.lost(
            key, "translated, but the convolutions before the norms have a bias there and none here"
        )
    return {
        "name": "RetinaNetHead",
        "num_convs": s.get("MODEL.RETINANET.NUM_CONVS"),
        **({"norm": norm} if norm else {}),
        "prior_prob": s.get("MODEL.RETINANET.PRIOR_PROB"),
    }


def _matcher(s: Settings) -> dict[str, Any]:
    key = "MODEL.RETINANET.IOU_THRESHOLDS"
    thresholds, labels = s.get(key), s.get("MODEL.RETINANET.IOU_LABELS")
    if (len(thresholds), labels) not in ((2, [0, -1, 1]), (1, [0, 1])):
        s.lost(
            key, "anchors are background, ignored, foreground by rising IoU here, labels "
            "[0, -1, 1]; another matcher is a project's", also=("MODEL.RETINANET.IOU_LABELS",),
        )  # fmt: skip
        thresholds = [0.4, 0.5]
    return {
        "name": "MaxIoUMatcher",
        "foreground_thresh": thresholds[-1],
        "background_thresh": thresholds[0],
        "allow_low_quality": True,
    }


def _cls_loss(s: Settings) -> dict[str, Any]:
    alpha = s.get("MODEL.RETINANET.FOCAL_LOSS_ALPHA")
    if alpha < 0:
        s.lost("MODEL.RETINANET.FOCAL_LOSS_ALPHA", "no balancing there; 0.5 is that, at half scale")
        alpha = 0.5
    gamma = s.get("MODEL.RETINANET.FOCAL_LOSS_GAMMA")
    return {"name": "SigmoidFocalLoss", "alpha": alpha, "gamma": gamma}


def _box_loss(s: Settings) -> dict[str, Any]:
    key, beta_key = "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA"
    kind = s.get(key)
    if kind == "smooth_l1":
        beta = s.get(beta_key)
        return {"name": "L1Loss"} if beta < LEAST_BETA else {"name": "SmoothL1Loss", "beta": beta}
    overlap = {"giou": "GIoULoss", "diou": "DIoULoss", "ciou": "CIoULoss"}
    if kind not in overlap:
        s.problem(key, "must be one of smooth_l1, giou, diou, ciou")
    s.no_loss(beta_key, because=f"only for smooth_l1, and {key} is {kind}")
    return {"name": overlap.get(kind, "L1Loss")}


def _preprocessor(s: Settings, pyramid: Pyramid) -> dict[str, Any]:
    mean, std = (_of_length(s, f"MODEL.PIXEL_{name}", 3) for name in ("MEAN", "STD"))
    order = s.get("INPUT.FORMAT")
    if order not in ("BGR", "RGB"):
        s.lost("INPUT.FORMAT", "images come as RGB, and reach the network as RGB or BGR only")
        order = "BGR"
    # Ours stand in RGB order, whatever the network wants.
    turned = slice(None, None, -1 if order == "BGR" else 1)
    return {
        "name": "ImageNormalizer",
        "mean": mean[turned],
        "std": std[turned],
        "channel_order": order,
        "size_divisor": 2 ** int(pyramid.stages[-1][3:]),
    }


def _of_length(s: Settings, key: str, length: int) -> list[float]:
    values: list[float] = s.get(key)
    if len(values) != length:
        s.problem(key, f"must have {length} entries here")
        return [1.0] * length
    return values
