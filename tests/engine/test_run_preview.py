"""The schedule of a run without a run."""

import pathlib

from detlite import load_config
from detlite.engine.run_preview import preview_run

CONFIG = pathlib.Path(__file__).parents[2] / "configs/classification/resnet18_trashnet150.yaml"


def test_images_of_classes_are_counted_with_and_without_empty_ones(class_folders):
    folder = class_folders({"a/1.png": (8, 8), "b/2.png": (8, 8), "b/3.png": (8, 8)})
    for keep in ("true", "false"):
        overrides = [
            f"data.train=[{{name: ImageFolder, folder: {folder}}}]",
            "data.test=[]",
            f"data.keep_empty_images={keep}",
            "solver.max_iter=6",
        ]
        assert preview_run(load_config(CONFIG, overrides)).images == 3
