"""Whether the parts of a config are for one task, before any of them is built."""

from typing import Any

from ..config.schema import Config
from ..data import DATASET_REGISTRY
from ..errors import ConfigError
from ..evaluation import EVALUATOR_REGISTRY
from ..modeling import META_ARCH_REGISTRY
from ..registry import Block, Registry

# What the message names, for each task.
_DATASETS = {"detection": "CocoDetection", "classification": "ImageFolder"}
_EVALUATORS = {"detection": "COCOEvaluator", "classification": "ClassificationEvaluator"}


def check_task(config: Config) -> None:
    """Compare the meta-arch's task with those of the data sets and the evaluators.

    Components that state no ``task``, such as functions, go unchecked.

    Raises:
        ConfigError: A data set or an evaluator is for another task.
    """
    task = _task(META_ARCH_REGISTRY, config.model)
    if task is None:
        return
    parts: list[tuple[str, list[Block], Registry, dict[str, str]]] = [
        ("data.train", config.data.train, DATASET_REGISTRY, _DATASETS),
        ("data.test", config.data.test, DATASET_REGISTRY, _DATASETS),
    ]
    if config.data.test:
        parts.append(("test.evaluators", config.test.evaluators, EVALUATOR_REGISTRY, _EVALUATORS))
    for key, blocks, registry, examples in parts:
        for i, block in enumerate(blocks):
            other = _task(registry, block)
            if other is not None and other != task:
                fits = f", such as {examples[task]}" if task in examples else ""
                raise ConfigError(
                    f"{key}.{i}: {registry.kind} '{block.name}' is for {other}, and meta-arch "
                    f"'{config.model.name}' for {task}; set {key} to one for {task}{fits}, or "
                    "model to another meta-arch"
                )


def _task(registry: Registry, block: Any) -> str | None:
    return getattr(registry.get(block.name), "task", None)
