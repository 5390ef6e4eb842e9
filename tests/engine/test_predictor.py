"""A checkpoint is enough to predict."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from detlite import Predictor
from detlite.errors import CheckpointError, ConfigError, DataError
from detlite.visualization import write_picture


@pytest.fixture
def weights(train, tmp_path):
    """A checkpoint of a tiny model that finds something."""
    train("model.postprocessor.score_thresh=0.0", "model.postprocessor.max_detections=7")
    return tmp_path / "run/model_final.pth"


def picture(height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_checkpoint_needs_nothing_else(weights):
    predictor = Predictor(weights)
    found = predictor(picture())
    assert found.image_size == (60, 90)
    assert found.pred_boxes.shape == (7, 4)
    assert predictor.class_names == ("circle", "triangle", "cross")


def test_arrays_tensors_and_files_give_the_same(weights, tmp_path):
    image = picture()
    write_picture(tmp_path / "a.png", image)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    results = Predictor(weights)([image, tensor, tmp_path / "a.png", str(tmp_path / "a.png")])
    for other in results[1:]:
        assert torch.equal(other.pred_boxes, results[0].pred_boxes)


def test_batches_give_what_single_images_give(weights):
    # Of one size: padding, which a batch of several sizes needs, is part of what the network sees.
    images = [picture(64, 96), picture(64, 96)[::-1], picture(64, 96)[:, ::-1]]
    single = Predictor(weights)(images)
    batched = Predictor(weights, batch_size=2)(images)
    for one, other in zip(single, batched, strict=True):
        assert torch.allclose(one.scores, other.scores, atol=1e-5)


def test_a_batch_of_several_sizes_gives_each_image_its_own_pixels(weights):
    images = [picture(64, 64), picture(64, 96), picture(96, 64)]
    found = Predictor(weights, batch_size=2)(images)
    assert [r.image_size for r in found] == [(64, 64), (64, 96), (96, 64)]
    for image, instances in zip(images, found, strict=True):
        height, width = image.shape[:2]
        limits = torch.tensor([width, height, width, height])
        assert (instances.pred_boxes <= limits).all()


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 2), np.uint8), np.zeros((8, 8, 3)), torch.zeros(8, 8, 3).byte()]
)
def test_what_is_no_image_is_refused_with_its_shape(weights, image):
    with pytest.raises(ValueError, match=r"an image is a path, .* got \(8, 8"):
        Predictor(weights)(image)


def test_a_checkpoint_cannot_make_its_reader_run_a_file(weights, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'w')")
    content = torch.load(weights)
    content["config"] = content["config"].replace(
        "imports: []", f"imports: [{tmp_path / 'evil.py'}]"
    )
    del content["version"]  # which promises a checksum
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match=r"evil.py.*--trust-imports"):
        Predictor(tmp_path / "evil.pth")
    assert not (tmp_path / "planted").exists()


def test_a_text_file_is_no_checkpoint(tmp_path):
    (tmp_path / "a.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        Predictor(tmp_path / "a.pth")


NAMES = ["circle", "triangle", "cross"]


@pytest.mark.parametrize("as_path", [False, True])
def test_another_frameworks_file_needs_the_config_of_its_model(as_path, weights, tmp_path):
    predictor = Predictor(weights)
    predictor.export("detectron2", tmp_path / "model.pkl")
    config = predictor.config
    if as_path:
        config = tmp_path / "config.yaml"
        config.write_text(predictor.config.to_yaml())
    other = Predictor(tmp_path / "model.pkl", config=config)
    assert other.class_names == tuple(NAMES)
    expected, found = predictor(picture()), other(picture())
    assert torch.equal(found.pred_boxes, expected.pred_boxes)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    with pytest.raises(CheckpointError, match=r"RetinaNet of detectron2, which does not say"):
        Predictor(tmp_path / "model.pkl")


def test_a_file_without_class_names_is_given_them(weights, tmp_path):
    predictor = Predictor(weights)
    predictor.export("torchvision", tmp_path / "model.pth")
    config = predictor.config
    with pytest.raises(CheckpointError, match=r"does not name its classes; list them"):
        Predictor(tmp_path / "model.pth", config=config)
    other = Predictor(tmp_path / "model.pth", config=config, class_names=["a", "b", "c"])
    assert other.class_names == ("a", "b", "c")
    config.model["weights_class_names"] = NAMES
    assert Predictor(tmp_path / "model.pth", config=config).class_names == tuple(NAMES)
    assert torch.equal(other(picture()).scores, predictor(picture()).scores)


def test_a_backbone_alone_detects_nothing(weights, tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"ResNet in torchvision's names and no head"):
        Predictor(tmp_path / "resnet18.pth", config=Predictor(weights).config)


def test_folders_iterators_pillow_images_and_a_score_thresh_are_taken(weights, tmp_path):
    for name, size in (("b/a.png", (40, 60)), ("c.png", (50, 60))):
        write_picture(tmp_path / "in" / name, picture(*size))
    (tmp_path / "in/notes.txt").write_text("no image")
    predictor = Predictor(weights)
    found = predictor(tmp_path / "in")
    assert sorted(r.image_size for r in found) == [(40, 60), (50, 60)]
    thresh = float(found[0].scores[3])
    assert len(predictor(str(tmp_path / "in"), score_thresh=thresh)[0]) == 4
    assert len(Predictor(weights, score_thresh=1.0)(Image.fromarray(picture()))) == 0
    assert [r.image_size for r in predictor(iter([picture(), picture(40, 50)[:, :, 0]]))] == [
        (60, 90),
        (40, 50),
    ]
    for empty in ([], iter(())):
        with pytest.raises(ValueError, match="list or iterator is empty"):
            predictor(empty)
    for nothing in (None, [None]):
        with pytest.raises(ValueError, match="got NoneType"):
            predictor(nothing)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1\.5"):
        predictor(picture(), score_thresh=1.5)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got '0\.5'"):
        predictor(picture(), score_thresh="0.5")
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Predictor(weights, batch_size=0)


def test_the_keys_of_image_files_in_the_checkpoint_reach_the_predictor(train, tmp_path):
    train("data.max_pixels=1000")
    write_picture(tmp_path / "a.png", picture(40, 30))
    with pytest.raises(DataError, match=r"data\.max_pixels is 1,000"):
        Predictor(tmp_path / "run/model_final.pth")(tmp_path / "a.png")
