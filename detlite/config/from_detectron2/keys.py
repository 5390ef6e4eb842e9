"""The keys of detectron2 that a RetinaNet reads, with their defaults, and those it does not read.

A YAML states only what differs from these defaults.
"""

from typing import Any

_MODEL = {
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "DEVICE": "cuda",
    "WEIGHTS": "",
    "MASK_ON": False,
    "KEYPOINT_ON": False,
    "PIXEL_MEAN": [103.53, 116.28, 123.675],
    "PIXEL_STD": [1.0, 1.0, 1.0],
    "BACKBONE.NAME": "build_resnet_backbone",
    "BACKBONE.FREEZE_AT": 2,
    "RESNETS.DEPTH": 50,
    "RESNETS.OUT_FEATURES": ["res4"],
    "RESNETS.NUM_GROUPS": 1,
    "RESNETS.NORM": "FrozenBN",
    "RESNETS.WIDTH_PER_GROUP": 64,
    "RESNETS.STRIDE_IN_1X1": True,
    "RESNETS.RES5_DILATION": 1,
    "RESNETS.RES2_OUT_CHANNELS": 256,
    "RESNETS.STEM_OUT_CHANNELS": 64,
    "RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "RESNETS.DEFORM_MODULATED": False,
    "RESNETS.DEFORM_NUM_GROUPS": 1,
    "FPN.IN_FEATURES": [],
    "FPN.OUT_CHANNELS": 256,
    "FPN.NORM": "",
    "FPN.FUSE_TYPE": "sum",
    "ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "ANCHOR_GENERATOR.ANGLES": [[-90, 0, 90]],
    "ANCHOR_GENERATOR.OFFSET": 0.0,
    "RETINANET.NUM_CLASSES": 80,
    "RETINANET.IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "RETINANET.NUM_CONVS": 4,
    "RETINANET.NORM": "",
    "RETINANET.PRIOR_PROB": 0.01,
    "RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
    "RETINANET.IOU_LABELS": [0, -1, 1],
    "RETINANET.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "RETINANET.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "RETINANET.SMOOTH_L1_LOSS_BETA": 0.1,
    "RETINANET.FOCAL_LOSS_GAMMA": 2.0,
    "RETINANET.FOCAL_LOSS_ALPHA": 0.25,
    "RETINANET.SCORE_THRESH_TEST": 0.05,
    "RETINANET.TOPK_CANDIDATES_TEST": 1000,
    "RETINANET.NMS_THRESH_TEST": 0.5,
}
_INPUT = {
    "FORMAT": "BGR",
    "MIN_SIZE_TRAIN": [800],
    "MIN_SIZE_TRAIN_SAMPLING": "choice",
    "MAX_SIZE_TRAIN": 1333,
    "MIN_SIZE_TEST": 800,
    "MAX_SIZE_TEST": 1333,
    "RANDOM_FLIP": "horizontal",
    "CROP.ENABLED": False,
    "CROP.TYPE": "relative_range",
    "CROP.SIZE": [0.9, 0.9],
}
_DATALOADER = {
    "NUM_WORKERS": 4,
    "ASPECT_RATIO_GROUPING": True,
    "SAMPLER_TRAIN": "TrainingSampler",
    "REPEAT_THRESHOLD": 0.0,
    "REPEAT_SQRT": True,
    "FILTER_EMPTY_ANNOTATIONS": True,
}
_SOLVER = {
    "IMS_PER_BATCH": 16,
    "REFERENCE_WORLD_SIZE": 0,
    "MAX_ITER": 40000,
    "BASE_LR": 0.001,
    "BASE_LR_END": 0.0,
    "MOMENTUM": 0.9,
    "NESTEROV": False,
    "WEIGHT_DECAY": 0.0001,
    "WEIGHT_DECAY_NORM": 0.0,
    "WEIGHT_DECAY_BIAS": None,
    "BIAS_LR_FACTOR": 1.0,
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "GAMMA": 0.1,
    "STEPS": [30000],
    "NUM_DECAYS": 3,
    "WARMUP_FACTOR": 0.001,
    "WARMUP_ITERS": 1000,
    "WARMUP_METHOD": "linear",
    "RESCALE_INTERVAL": False,
    "CHECKPOINT_PERIOD": 5000,
    "CLIP_GRADIENTS.ENABLED": False,
    "CLIP_GRADIENTS.CLIP_TYPE": "value",
    "CLIP_GRADIENTS.CLIP_VALUE": 1.0,
    "CLIP_GRADIENTS.NORM_TYPE": 2.0,
    "AMP.ENABLED": False,
}
_TEST = {
    "DETECTIONS_PER_IMAGE": 100,
    "EVAL_PERIOD": 0,
    "EXPECTED_RESULTS": [],
    "AUG.ENABLED": False,
    "AUG.MIN_SIZES": [400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
    "AUG.MAX_SIZE": 4000,
    "AUG.FLIP": True,
    "PRECISE_BN.ENABLED": False,
    "PRECISE_BN.NUM_ITER": 200,
}
_SECTIONS = {
    "MODEL": _MODEL,
    "INPUT": _INPUT,
    "DATASETS": {"TRAIN": [], "TEST": []},
    "DATALOADER": _DATALOADER,
    "SOLVER": _SOLVER,
    "TEST": _TEST,
}

DEFAULTS: dict[str, Any] = {
    f"{section}.{name}": default
    for section, defaults in _SECTIONS.items()
    for name, default in defaults.items()  # type: ignore[attr-defined]
} | {
    "VERSION": 2,
    "OUTPUT_DIR": "./output",
    "SEED": -1,
    "CUDNN_BENCHMARK": False,
    "FLOAT32_PRECISION": "",
    "VIS_PERIOD": 0,
}
"""Keys that have an effect on a RetinaNet, its training or its test; tuples are lists."""

ALIKE: dict[str, Any] = {
    "MODEL.FPN.IN_FEATURES": ["res3"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32.0]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5]],
    "DATASETS.TRAIN": ["coco_2017_train"],
    "DATASETS.TEST": ["coco_2017_val"],
    "SOLVER.WEIGHT_DECAY_BIAS": 0.0,
}
"""Values that show the type of a key, where its default does not."""

MAY_BE_NULL = (
    "MODEL.RESNETS.NORM",
    "MODEL.FPN.NORM",
    "MODEL.RETINANET.NORM",
    "SOLVER.WEIGHT_DECAY_NORM",
    "SOLVER.WEIGHT_DECAY_BIAS",
)

_TWO_STAGES = "not read by a RetinaNet there either: for models with proposals"
_MASKS = "not read by a RetinaNet there either: for masks and keypoints"
UNREAD = {
    "MODEL.LOAD_PROPOSALS": _TWO_STAGES,
    "MODEL.PROPOSAL_GENERATOR": _TWO_STAGES,
    "MODEL.RPN": _TWO_STAGES,
    "MODEL.ROI_HEADS": _TWO_STAGES,
    "MODEL.ROI_BOX_HEAD": _TWO_STAGES,
    "MODEL.ROI_BOX_CASCADE_HEAD": _TWO_STAGES,
    "MODEL.ROI_MASK_HEAD": _MASKS,
    "MODEL.ROI_KEYPOINT_HEAD": _MASKS,
    "MODEL.SEM_SEG_HEAD": "not read by a RetinaNet there either: for semantic segmentation",
    "MODEL.PANOPTIC_FPN": "not read by a RetinaNet there either: for panoptic segmentation",
    "DATASETS.PROPOSAL_FILES_TRAIN": _TWO_STAGES,
    "DATASETS.PROPOSAL_FILES_TEST": _TWO_STAGES,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": _TWO_STAGES,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": _TWO_STAGES,
    "INPUT.MASK_FORMAT": _MASKS,
    "TEST.KEYPOINT_OKS_SIGMAS": _MASKS,
    "GLOBAL": "not read there either, for experiments only",
}
"""Keys and sections that a RetinaNet does not read, and what they are."""
