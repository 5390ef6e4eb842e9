"""Stage one beside a plain torchvision loop: the data alone, and whole iterations, in one run."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from detlite import Config, HookBase, Trainer, build_trainer, load_config
from detlite.data import build_datasets, build_train_loader, build_transforms
from detlite.engine.precision import autocast, memory_format

CONFIG = Path(__file__).parents[2] / "configs/classification/resnet18_trashnet150.yaml"
NUM_IMAGES = 384
CLASSES = "abcdef"
STRETCH = 20  # iterations of one, then as many of the other


def run(repeat: int) -> list[dict[str, object]]:
    """Seconds of stretches of both, in turn, on the same images with the same augmentations."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        make_images(images)
        config = load_config(
            str(CONFIG),
            [
                f"data.train=[{{name: ImageFolder, folder: '{images}'}}]",
                "data.test=[]",
                f"output_dir='{folder}/run'",
                f"solver.max_iter={(repeat + 1) * STRETCH}",
                "solver.optimizer={name: AdamW, lr: 0.001, fused: true}",
            ],
        )
        transforms = build_transforms(config.data.train_transforms)
        rows = [_data_row(config, images, transforms, repeat)]
        trainer = build_trainer(config)
        peer = plain_loop(images, transforms, config, trainer)
        in_turn = InTurn(peer)
        trainer.hooks.insert(0, in_turn)
        trainer.train()
    size = f"{config.data.batch_size} images"
    rows.append(_row(f"training iteration, ResNet-18, {size}", in_turn.seconds[1:]))
    return rows


def make_images(folder: Path) -> None:
    """Smooth coloured noise, 150 x 150, in class folders, as JPEG."""
    generator = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        small = generator.integers(0, 256, (12, 12, 3), np.uint8)
        path = folder / CLASSES[i % len(CLASSES)] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((150, 150), Image.Resampling.BICUBIC).save(path, quality=90)


class InTurn(HookBase):
    """After each stretch of the run, as many iterations of another one.

    Args:
        other: Makes one iteration a step.
    """

    def __init__(self, other: Iterator[None]) -> None:
        self.other = other
        self.seconds: list[tuple[float, float]] = []
        self._begun = time.perf_counter()

    def after_step(self, trainer: Trainer) -> None:
        """Take the times."""
        if (trainer.iter + 1) % STRETCH:
            return
        ended = time.perf_counter()
        for _ in range(STRETCH):
            next(self.other)
        now = time.perf_counter()
        self.seconds.append((ended - self._begun, now - ended))
        self._begun = now


def plain_batches(
    folder: Path, transforms: list[v2.Transform], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches as torchvision's references/classification makes them, for ever."""
    tensors = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    data = torchvision.datasets.ImageFolder(
        str(folder), transform=v2.Compose([*transforms, *tensors])
    )
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def plain_loop(
    folder: Path, transforms: list[v2.Transform], config: Config, ours: Trainer
) -> Iterator[None]:
    """One iteration of torchvision's ResNet-18 a step: fused AdamW, the rest as in our run."""
    layout = memory_format(config.train.channels_last, ours.precision, ours.device)
    model = torchvision.models.resnet18(num_classes=len(CLASSES))
    model = model.to(ours.device, memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, fused=True)
    for images, classes in plain_batches(folder, transforms, config.data.batch_size):
        images = images.to(ours.device, memory_format=layout)
        classes = classes.to(ours.device)
        with autocast(ours.device, ours.precision):
            logits = model(images)
            loss = F.cross_entropy(logits.float(), classes, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def _data_row(
    config: Config, images: Path, transforms: list[v2.Transform], repeat: int
) -> dict[str, object]:
    ours = iter(build_train_loader(config, build_datasets(config.data.train, "data.train")))
    peer = plain_batches(images, transforms, config.data.batch_size)
    pairs = [(_seconds(ours), _seconds(peer)) for _ in range(repeat + 1)]
    return _row(f"{config.data.batch_size} images from files to tensors", pairs[1:])


def _seconds(batches: Iterator[object]) -> float:
    start = time.perf_counter()
    for _ in itertools.islice(batches, STRETCH):
        pass
    return time.perf_counter() - start


def _row(work: str, pairs: list[tuple[float, float]]) -> dict[str, object]:
    return {
        "work": work,
        "detlite s": statistics.median(ours for ours, _ in pairs) / STRETCH,
        "torchvision s": statistics.median(peer for _, peer in pairs) / STRETCH,
        "ratio torchvision / detlite": statistics.median(peer / ours for ours, peer in pairs),
    }
