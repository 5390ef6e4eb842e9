"""The public surface, written out: whoever changes it changes this list, and the CHANGELOG."""

import os
import pathlib
import subprocess
import sys

import pytest

import detlite
from detlite.registry import REGISTRIES

NAMES = {
    *("load_config", "Config"),
    *("build_model", "build_trainer", "evaluate_model"),
    *("build_train_loader", "build_test_loaders"),
    *("Trainer", "HookBase", "Predictor"),
    *("Instances", "ImageList", "ShapeSpec", "BatchShare"),
    *("MetaArch", "Backbone", "Neck", "AnchorGenerator", "Head", "Matcher", "BoxCoder"),
    *("ExtraLevels", "Preprocessor", "Postprocessor", "LossNormalizer"),
    *("ClassificationLoss", "QualityLoss", "BoxLoss", "ImageClassificationLoss"),
    *("ImageDataset", "DetectionDataset", "ClassificationDataset", "TrainingSampler"),
    *("DatasetEvaluator", "COCOEvaluator", "ClassificationEvaluator", "inference_on_dataset"),
    *("UserError", "ConfigError", "DataError", "CheckpointError"),
    "Registry",
    *("META_ARCH_REGISTRY", "BACKBONE_REGISTRY", "NECK_REGISTRY", "EXTRA_LEVELS_REGISTRY"),
    *("ANCHOR_GENERATOR_REGISTRY", "HEAD_REGISTRY", "MATCHER_REGISTRY", "BOX_CODER_REGISTRY"),
    *("LOSS_REGISTRY", "LOSS_NORMALIZER_REGISTRY"),
    *("PREPROCESSOR_REGISTRY", "POSTPROCESSOR_REGISTRY"),
    *("DATASET_REGISTRY", "TRANSFORM_REGISTRY", "SAMPLER_REGISTRY"),
    *("BATCH_TRANSFORM_REGISTRY", "BatchTransform"),
    *("OPTIMIZER_REGISTRY", "SCHEDULE_REGISTRY", "EVALUATOR_REGISTRY", "HOOK_REGISTRY"),
    "__version__",
}


def test_the_public_names_are_these():
    assert set(detlite.__all__) == NAMES
    assert len(detlite.__all__) == len(NAMES)


def test_every_public_name_can_be_imported():
    for name in detlite.__all__:
        assert getattr(detlite, name) is not None


def test_the_names_by_submodule_can_be_imported():
    from detlite.engine import hooks
    from detlite.ops import batched_nms, box_iou, nms
    from detlite.visualization import Visualizer

    assert all(map(callable, (box_iou, nms, batched_nms, Visualizer)))
    assert issubclass(hooks.LRScheduler, detlite.HookBase)


def test_every_registry_is_public_and_knows_what_it_holds():
    public = {id(getattr(detlite, name)) for name in NAMES if name.endswith("_REGISTRY")}
    for kind, registry in REGISTRIES.items():
        assert id(registry) in public, f"the registry of {kind} is not among the public names"
        assert registry.interface is not None


def run_python(program, **options):
    """What a fresh interpreter prints, in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_no_torch_and_the_first_name_brings_everything():
    program = """
import sys
import detlite
from detlite import DataError, Registry, __version__
assert not {"torch", "numpy"} & {*sys.modules}
import detlite.evaluation
from detlite.evaluation import coco_box_metrics
assert not {"torch", "pycocotools"} & {*sys.modules}
detlite.Trainer
assert "torch" in sys.modules
assert all(name in vars(detlite) for name in detlite.__all__)
"""
    assert run_python(program) == ""


@pytest.mark.parametrize(
    "program",
    [
        "import detlite; assert detlite.ops.nms and detlite.visualization.Visualizer",
        "from detlite import *; assert Predictor and EVALUATOR_REGISTRY.get('VOCEvaluator')",
        "from detlite.evaluation.registries import EVALUATOR_REGISTRY\n"
        "assert 'VOCEvaluator' in EVALUATOR_REGISTRY",
        "from detlite.modeling.interfaces import Head\n"
        "from detlite.config.signature import nested_registry\n"
        "assert [*nested_registry(Head)]",
    ],
)
def test_every_way_in_finds_the_components(program):
    run_python(program)


def test_config_blocks_are_checked_whatever_was_imported_first():
    config = pathlib.Path(__file__).parents[1] / "configs" / "quickstart.yaml"
    program = (
        f"from detlite.config import load_config; print(load_config({str(config)!r}).model.name)"
    )
    assert run_python(program) == "RetinaNet\n"


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert not hasattr(detlite, "Trainr")
    assert not hasattr(detlite.evaluation, "COCOEvaluater")
    assert {*detlite.__all__, "ops", "engine"} <= {*dir(detlite)}
    assert {*detlite.evaluation.__all__} <= {*dir(detlite.evaluation)}


def test_import_needs_no_data_root_and_warns_of_nothing(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "DETLITE_DATASETS"}
    command = [sys.executable, "-W", "error", "-c", "import detlite"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
