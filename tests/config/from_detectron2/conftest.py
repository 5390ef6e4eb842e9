"""detectron2's RetinaNet, and changes to it."""

import pytest
import yaml

from detlite.config.from_detectron2 import convert_detectron2_yaml

# What detectron2's recipes state, in a layout of ours.
BASE = """\
VERSION: 2
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5]}
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval
      - "[[s * 2**(i/3.0) for i in range(3)] for s in (32, 64, 128, 256, 512)]"
  RETINANET: {IOU_THRESHOLDS: [0.4, 0.5], IOU_LABELS: [0, -1, 1], SMOOTH_L1_LOSS_BETA: 0.0}
INPUT: {MIN_SIZE_TRAIN: "(640, 672, 704, 736, 768, 800)"}
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER: {IMS_PER_BATCH: 16, BASE_LR: 0.01, STEPS: "(60000, 80000)", MAX_ITER: 90000}
"""


@pytest.fixture
def recipe():
    """The text of detectron2's recipe for RetinaNet."""
    return BASE


@pytest.fixture(scope="session")
def unchanged(tmp_path_factory):
    """The text of the recipe's translation, without its first comment."""
    path = tmp_path_factory.mktemp("detectron2") / "x.yaml"
    path.write_text(BASE)
    return convert_detectron2_yaml(path).text.partition("\n")[2]


@pytest.fixture
def convert(write):
    """Translate the recipe with changes, by dotted key."""

    def convert(changes):
        stated = {"_BASE_": "base.yaml"}
        for key, value in changes.items():
            section = stated
            *path, last = key.split(".")
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
        write("base.yaml", BASE)
        return convert_detectron2_yaml(write("x.yaml", yaml.safe_dump(stated)))

    return convert
