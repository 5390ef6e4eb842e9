"""Images with painted rectangles as a COCO data set on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from detlite.data.datasets import CocoDetection


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
