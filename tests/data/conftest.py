"""Images with painted rectangles as a COCO data set on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from detlite.data.datasets import CocoDetection
from detlite.data.loader import Loader
from detlite.data.mapper import TrainingData
from detlite.data.samplers import SequentialSampler, TrainingBatchSampler

from .faulty_dataset import NUM_IMAGES, FaultyDataset


@pytest.fixture
def painted_coco(tmp_path):
    """Write N images of one rectangle each; returns the keys of the config block.

    Every third image has no rectangle; every second one is portrait. Files that ``broken`` names by
    number are cut short.
    """

    def write(num_images, *, broken=(), classes=("ball", "box"), name="painted"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        generator = np.random.default_rng(0)
        images, annotations = [], []
        for i in range(num_images):
            width, height = (48, 32) if i % 2 else (32, 48)
            pixels = np.zeros((height, width, 3), np.uint8)
            x, y, w, h = (int(v) for v in generator.integers(4, 14, 4))
            if i % 3:
                pixels[y : y + h, x : x + w] = 255
                annotations.append(
                    {
                        "id": i,
                        "image_id": i,
                        "category_id": 1 + i % len(classes),
                        "bbox": [x, y, w, h],
                    }
                )
            Image.fromarray(pixels).save(folder / f"{i:03}.jpg", quality=95)
            size = {"width": width, "height": height}
            images.append({"id": i, "file_name": f"{i:03}.jpg", **size})
        for i in broken:
            file = folder / f"{i:03}.jpg"
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        path = tmp_path / f"{name}.json"
        categories = [{"id": k + 1, "name": name} for k, name in enumerate(classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(content))
        return {"json": str(path), "images": str(folder)}

    return write


@pytest.fixture
def painted_dataset(painted_coco):
    """The same as a data set."""

    def make(*arguments, **options):
        return CocoDetection(**painted_coco(*arguments, **options))

    return make


@pytest.fixture
def faulty(tmp_path):
    """Make a data set with faults, as {image: (kind, times)}."""
    return lambda faults=(): FaultyDataset(tmp_path, NUM_IMAGES, faults)


@pytest.fixture
def training():
    """Make a training loader of a data set: images 0, 1, 2, ... in batches of two."""
    loaders = []

    def make(dataset, *, num_workers=1, start=0, sampler=SequentialSampler, data=(), **options):
        order = sampler(
            images=np.arange(NUM_IMAGES), image_classes=[np.zeros(1, int)] * NUM_IMAGES, seed=0
        )
        batches = TrainingBatchSampler(order, batch_size=2, start=start)
        options = {"sample_timeout": 30.0, **options}
        source = TrainingData([dataset], [], **dict(data))
        loaders.append(Loader(source, batches, num_workers=num_workers, **options))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()
