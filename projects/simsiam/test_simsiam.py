from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from detlite import DataError, build_model, build_trainer, load_config

HERE = Path(__file__).parent


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images" / "anything"
    folder.mkdir(parents=True)
    for i in range(6):
        pixels = torch.randint(256, (40, 48, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return folder.parent


def brief(images, folder):
    return [
        f"data.train=[{{name: ImageFolder, folder: {images}, unlabelled: true}}]",
        "data.train_transforms.0.transforms.0.size=32",
        "data.batch_size=4",
        "data.num_workers=0",
        "solver.max_iter=2",
        "train.precision=fp32",
        f"output_dir={folder}",
    ]


def paper_loss(model, batch):
    """Algorithm 1 of the paper, image by image of a batch."""
    x1, x2 = model.preprocessor([sample["image"] for sample in batch]).tensor.chunk(2, dim=2)
    z1, z2 = (model.projector(model.pool(x.contiguous())) for x in (x1, x2))
    p1, p2 = model.predictor(z1), model.predictor(z2)

    def distance(p, z):
        return -(F.normalize(p, dim=1) * F.normalize(z.detach(), dim=1)).sum(dim=1).mean()

    return distance(p1, z2) / 2 + distance(p2, z1) / 2


def test_the_loss_and_its_gradient_are_algorithm_1s(images, tmp_path):
    config = load_config(HERE / "simsiam_r18_trashnet150.yaml", brief(images, tmp_path / "run"))
    model = build_model(config).train()
    batch = [{"image": torch.randint(256, (3, 64, 32), dtype=torch.uint8)} for _ in range(4)]
    expected = torch.autograd.grad(paper_loss(model, batch), list(model.parameters()))
    losses = model(batch)
    losses["loss_similarity"].backward()
    for (name, parameter), grad in zip(model.named_parameters(), expected, strict=True):
        assert grad.any(), name
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-7)
    assert 0 < losses["spread"] < 1.1


def test_single_images_are_refused(images, tmp_path):
    config = load_config(HERE / "simsiam_r18_trashnet150.yaml", brief(images, tmp_path / "run"))
    model = build_model(config).train()
    batch = [{"image": torch.zeros(3, h, 32, dtype=torch.uint8)} for h in (64, 32)]
    with pytest.raises(DataError, match=r"TwoViews.* got .*\(32, 32\) and \(64, 32\)"):
        model(batch)


def test_the_loader_gives_two_views_of_each_image(images, tmp_path):
    config = load_config(HERE / "simsiam_r18_trashnet150.yaml", brief(images, tmp_path / "run"))
    trainer = build_trainer(config)
    batch = next(iter(trainer.loader))
    for sample in batch:
        assert sample["image"].shape == (3, 64, 32)
        first, second = sample["image"].split(32, dim=1)
        assert not torch.equal(first, second)


def test_its_backbone_goes_into_a_classifier_and_a_detector(images, tmp_path):
    run = tmp_path / "run"
    build_trainer(load_config(HERE / "simsiam_r18_trashnet150.yaml", brief(images, run))).train()
    weights = f"model.weights={run / 'model_final.pth'}"
    features = build_model(load_config(run / "config.yaml", [weights])).eval()
    overrides = [weights, f"data.train=[{{name: ImageFolder, folder: {images}}}]", "data.test=[]"]
    classifier = build_trainer(
        load_config(HERE / "linear_r18_trashnet150.yaml", [*overrides, f"output_dir={tmp_path}/l"])
    ).model
    trained = [name for name, p in classifier.named_parameters() if p.requires_grad]
    assert trained == ["head.weight", "head.bias"]
    cells = HERE.parents[1] / "configs/quickstart.yaml"
    backbone = "model.backbone={name: ResNet, depth: 18, norm: FrozenBN}"
    detector = build_model(load_config(cells, [weights, backbone]))
    learnt = features.backbone.state_dict()
    for model in (classifier, detector):
        own = model.backbone.state_dict()
        assert [name for name, value in own.items() if not torch.equal(value, learnt[name])] == []
        assert len(own) > 60
