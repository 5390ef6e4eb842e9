"""A model of a config, evaluated on the test data of that config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..config.schema import Config
from ..data import Loader, build_datasets, build_test_loader
from ..errors import ConfigError
from ..evaluation import EVALUATOR_REGISTRY, inference_on_dataset
from .check_task import check_task
from .parallel import sync_model
from .precision import Precision, autocast, choose_precision


def build_test_loaders(config: Config, class_names: Sequence[str] | None = None) -> list[Loader]:
    """Build a loader for each test data set.

    Args:
        config: The whole config.
        class_names: The model's, by which those of the data are numbered; None: those of the data
            set that has most.
    """
    if not config.data.test:
        return []
    check_task(config)
    datasets = build_datasets(config.data.test, "data.test", class_names)
    names = [dataset.name for dataset in datasets]
    for dataset in datasets:
        if names.count(dataset.name) > 1:
            raise ConfigError(
                f"data.test: {names.count(dataset.name)} data sets are called '{dataset.name}', "
                "and the results of one would replace the other's; give each a `title`"
            )
    return [build_test_loader(config, dataset) for dataset in datasets]


def evaluate_model(
    config: Config,
    model: nn.Module,
    test_loaders: Sequence[Loader],
    folder: str = "inference",
    *,
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Evaluate a model on each test data set: ``{data set: {task: {metric: value}}}``.

    Args:
        config: The whole config.
        model: Is not changed.
        test_loaders: What ``build_test_loaders`` made.
        folder: Of ``output_dir``, for the files, one folder a data set.
        precision: Of the forward pass; None: chosen by ``test.precision``, and logged.
    """
    results = {}
    sync_model(model)  # batch norms have seen other images on each rank
    device = next(model.parameters()).device
    if precision is None:
        asked = {"test.precision": config.test.precision}
        precision = choose_precision(asked, device)["test.precision"]
    for loader in test_loaders:
        assert loader.dataset is not None
        name = loader.dataset.name
        files = Path(config.output_dir) / folder / name
        evaluators = [
            EVALUATOR_REGISTRY.build(block, dataset=loader.dataset, output_dir=str(files))
            for block in config.test.evaluators
        ]
        with autocast(device, precision):
            results[name] = inference_on_dataset(model, loader, evaluators)
    return results
