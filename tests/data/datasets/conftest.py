"""Small data sets on disk."""

import json

import pytest
from PIL import Image


@pytest.fixture
def coco_content():
    """Two images and two classes, with gaps in all ids and the second image without boxes."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 40, "width": 60},
            {"id": 3, "file_name": "sub/b.png", "height": 30, "width": 20},
        ],
        "annotations": [
            {"id": 100, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 15], "area": 250.5},
            {"id": 50, "image_id": 7, "category_id": 4, "bbox": [1.5, 2.5, 4.0, 6.0]},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 4, "name": "cat"}],
    }


@pytest.fixture
def write_coco(tmp_path):
    """Write images and ``instances.json``; returns the keys of the config block."""

    def write(content, *, images=("a.jpg", "sub/b.png")):
        folder = tmp_path / "images"
        (folder / "sub").mkdir(parents=True, exist_ok=True)
        for name in images:
            size = {"a.jpg": (60, 40), "sub/b.png": (20, 30)}[name]
            Image.new("RGB", size, (200, 10, 30)).save(folder / name)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return {"json": str(path), "images": str(folder)}

    return write
