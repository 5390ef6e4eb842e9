"""A classifier through the whole engine, and its backbone in a detector: stage one and two."""

import logging
import pathlib

import pytest
import torch

from detlite import ConfigError, Predictor, build_model, build_trainer, load_config
from detlite.data import read_image
from detlite.engine.check_resume import check_resume

CONFIG = pathlib.Path(__file__).parents[2] / "configs/classification/resnet18_trashnet150.yaml"
NOWHERE = "data.train.0.folder=nowhere"
NAMES = ["cat", "dog", "horse"]
FILES = {f"{name}/{i}.png": (40 + i, 36) for name in NAMES for i in range(3)}


@pytest.fixture
def classifier_config(class_folders, tmp_path):
    """The config of trashnet150, small and on nine images, writing into ``tmp_path/stage1``."""
    folder = class_folders(FILES)
    data = f"[{{name: ImageFolder, folder: {folder}, title: photos}}]"

    def make(*overrides, output="stage1"):
        tiny = [
            f"data.train={data}",
            f"data.test={data}",
            "data.train_transforms.0.size=32",
            "data.test_transforms=[{name: Resize, size: [32, 32]}]",
            "data.batch_size=4",
            "data.num_workers=0",
            "solver.max_iter=2",
            "solver.schedule.warmup_iters=1",
            "train.precision=fp32",
            "train.log_period=1",
            "test.precision=fp32",
            f"output_dir={tmp_path / output}",
        ]
        return load_config(CONFIG, [*tiny, *overrides])

    return make


@pytest.fixture
def stage_one(classifier_config, tmp_path):
    """A trained classifier: the trainer after its run."""
    trainer = build_trainer(
        classifier_config("train.hooks=[{name: PredictionPictures}, {name: ValidationLoss}]")
    )
    trainer.train()
    return trainer


def test_a_run_trains_evaluates_draws_and_keeps_the_best(stage_one, tmp_path, caplog):
    results = stage_one.results["photos"]
    assert {"top1", "mean_class", "top1-cat"} <= set(results["classification"])
    assert set(results["val"]) == {"total_loss", "loss_cls"}
    for file in ("model_best.pth", "model_final.pth", "pictures.jpg"):
        assert (tmp_path / "stage1" / file).is_file()
    # Some of each class, and not the first ones only.
    drawn = {path.stem for path in (tmp_path / "stage1/pictures").iterdir()}
    assert len(drawn) == 8
    assert (tmp_path / "stage1/inference/photos/confusion.png").is_file()
    assert "accuracy" in stage_one.metrics


def test_a_checkpoint_is_enough_to_classify(stage_one, tmp_path):
    predictor = Predictor(tmp_path / "stage1/model_final.pth")
    files = [tmp_path / "photos" / name for name in list(FILES)[:3]]
    scores = predictor(files)
    assert predictor.class_names == tuple(NAMES)
    assert [each.shape for each in scores] == [(3,)] * 3
    torch.testing.assert_close(torch.stack(scores).sum(dim=1), torch.ones(3))
    assert torch.equal(predictor(read_image(files[0])), scores[0])


def test_a_detector_takes_the_backbone_of_stage_one(stage_one, tiny_config, tmp_path, caplog):
    caplog.set_level(logging.INFO, "detlite")
    weights = tmp_path / "stage1/model_final.pth"
    config = tiny_config(
        f"model.weights={weights}",
        "model.backbone.norm=FrozenBN",
        "model.backbone.freeze_at=2",
        "model.backbone.out_features=[res4, res5]",
        output="stage2",
    )
    detector = build_model(config).eval()
    # What predicts is the average, and so it is what goes on.
    theirs = stage_one.ema.weights
    ours = detector.state_dict()
    names = [n for n in ours if n.startswith("backbone.")]
    assert "backbone.res4.0.conv1.norm.running_mean" in names
    assert all(torch.equal(ours[n], theirs[n]) for n in names)
    with stage_one.ema.applied(stage_one.model), torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        expected = stage_one.model.eval().backbone(image)["res5"]
        torch.testing.assert_close(detector.backbone(image)["res5"], expected)
    report = caplog.text
    assert "known and not needed: classifier (2)" in report
    assert "left over:" not in report
    assert "other settings" not in report
    trainer = build_trainer(config)
    trainer.train()
    moved = trainer.model.state_dict()
    frozen = [n for n in names if "running" in n or ".stem." in n or ".res2." in n]
    assert all(torch.equal(moved[n], theirs[n]) for n in frozen)
    assert not torch.equal(
        moved["backbone.res5.0.conv1.weight"], theirs["backbone.res5.0.conv1.weight"]
    )


def test_a_batch_in_parts_and_an_interrupted_run_work_as_with_detectors(classifier_config):
    config = classifier_config("train.accumulate=2", "train.hooks=[]", "data.test=[]")
    report = check_resume(config, 2)
    assert report.num_values > 100
    assert report.differences == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.train=[{name: Shapes, num_images: 2}]"],
            "data.train.0: dataset 'Shapes' is for detection, and meta-arch 'ImageClassifier' for "
            "classification; set data.train to one for classification, such as ImageFolder",
        ),
        (
            ["data.test=[{name: Shapes, num_images: 2}]", NOWHERE],
            "data.test.0: dataset 'Shapes' is for",
        ),
        (
            ["test.evaluators=[{name: COCOEvaluator}]", NOWHERE],
            "test.evaluators.0: evaluator 'COCOEvaluator' is for .*such as ClassificationEvaluator",
        ),
    ],
)
def test_parts_for_another_task_are_refused_before_data_are_read(
    classifier_config, overrides, message
):
    with pytest.raises(ConfigError, match=message):
        build_trainer(classifier_config(*overrides))


def test_a_detector_on_images_of_classes_is_refused(tiny_config):
    config = tiny_config("data.train=[{name: ImageFolder, folder: nowhere}]")
    for build in (build_model, build_trainer):
        with pytest.raises(ConfigError, match="'ImageFolder' is for classification, and meta-arch"):
            build(config)
