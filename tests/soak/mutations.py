"""Other plausible values for the keys of a config, drawn from their types."""

from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from detlite import Config
from detlite.config.signature import (
    is_class,
    item_annotation,
    nested_registry,
    signature_of,
    without_none,
)
from detlite.registry import Block

ANOTHER_DATASET = {"name": "Shapes", "num_images": 5, "seed": 3, "image_size": [64, 64]}
# Where the type does not say what would be plausible; by the end of the key.
CHOICES: dict[str, list[Any]] = {
    "imports": [["json"]],
    "model": [{"name": "FCOS", "head": {"name": "FCOSHead", "num_convs": 1}}],
    "model.weights": ["other.pth"],
    "model.backbone": [{"name": "TorchvisionBackbone", "model": "resnet18"}],
    # At 0 newer versions of torch refuse the statistics of a batch, in new runs too.
    "model.backbone.norm_eps": [0.001],
    "model.neck": [{"name": "PAFPN", "out_channels": 16}, {"name": "BiFPN", "out_channels": 16}],
    "model.matcher": [{"name": "ATSSMatcher"}],
    "model.cls_loss": [{"name": "SigmoidFocalLoss", "gamma": 1.0}],
    "model.box_loss": [{"name": "SmoothL1Loss"}, {"name": "L1Loss"}],
    "model.loss_normalizer": [{"name": "MovingAverageNormalizer"}, {"name": "PerImageNormalizer"}],
    "data.train": [[ANOTHER_DATASET]],
    "data.test": [[{**ANOTHER_DATASET, "seed": 8, "num_images": 2}], []],
    "data.train_transforms": [[], [{"name": "RandomHorizontalFlip", "p": 0.9}]],
    "data.test_transforms": [[{"name": "ResizeShortestEdge", "min_size": [48], "max_size": 96}]],
    "data.sampler": [{"name": "SequentialSampler"}, {"name": "RepeatFactorSampler"}],
    "data.train.0.classes": [["cross", "triangle", "circle"], ["circle", "cross"]],
    "data.test.0.classes": [["cross", "triangle", "circle"]],
    "data.train.0.json": ["other.json"],
    "solver.optimizer": [
        {"name": "SGD", "lr": 0.001, "momentum": 0.9},
        {"name": "Adam", "lr": 0.001},
        {"name": "AdamW", "lr": 0.001},
        {"name": "RMSprop", "lr": 0.001},
    ],
    "solver.schedule": [
        {"name": "StepLR", "step_size": 1},
        {"name": "CosineAnnealingLR", "T_max": 7},
        {"name": "OneCycleLR", "max_lr": 0.003, "total_steps": 9},
        {"name": "CyclicLR", "base_lr": 0.0001, "max_lr": 0.003, "step_size_up": 3},
        {"name": "ExponentialLR", "gamma": 0.7},
        {"name": "CosineAnnealingWarmRestarts", "T_0": 3},
        {"name": "PolynomialLR", "total_iters": 6},
        {"name": "LinearLR", "total_iters": 6},
        {"name": "WarmupMultiStepLR", "milestones": [1, 3], "warmup_iters": 2},
        {"name": "WarmupCosineLR", "warmup_iters": 1},
    ],
    "solver.max_iter": [1, 3, 6, 20],
    "solver.reference_batch_size": [1, 2, 4],
    "solver.freeze": [["backbone.stem.*"], ["head.*", "neck.*"], []],
    "solver.parameter_groups": [
        [{"match": "backbone.*", "lr_factor": 0.1}],
        [{"match": "head.*", "weight_decay": 0.01}, {"match": "backbone.*", "lr_factor": 0.0}],
        [],
    ],
    "solver.layer_decay": [0.7, 1.0],
    "train.collective_timeout": [60.0],
    "train.hooks": [
        [],
        [{"name": "EarlyStopping", "patience": 1}, {"name": "PredictionPictures", "num_images": 1}],
        [{"name": "LRScheduler", "enabled": False}],
        [{"name": "NonFiniteLossCheck", "policy": "skip"}, {"name": "ValidationLoss"}],
    ],
    "test.evaluators": [[{"name": "VOCEvaluator"}]],
}


def keys_of(value: Any, annotation: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key of a config, with its type and value; lists and blocks as a whole too."""
    inner, _ = without_none(annotation)
    registry = nested_registry(inner)
    if is_dataclass(value):
        for name, key in signature_of(type(value)).keys.items():
            yield from keys_of(getattr(value, name), key.annotation, f"{path}.{name}".strip("."))
    elif isinstance(value, Block) and registry is not None:
        yield path, annotation, value
        keys = dict(signature_of(registry.get(value["name"])).keys)
        shared = {name: given for name, (given, _) in registry.shared_keys.items()}
        for name in value:
            if name in keys or name in shared:
                inside = keys[name].annotation if name in keys else shared[name]
                yield from keys_of(value[name], inside, f"{path}.{name}")
    else:
        yield path, annotation, value
        item = item_annotation(inner)
        if isinstance(value, list) and item is not None and not isinstance(item, str):
            for i, entry in enumerate(value):
                if isinstance(entry, Block) or is_dataclass(entry):
                    yield from keys_of(entry, item, f"{path}.{i}")


def all_keys(config: Config) -> list[tuple[str, Any, Any]]:
    """What can be changed in a config."""
    return [each for each in keys_of(config, Config) if each[0]]


def another(key: str, annotation: Any, value: Any, rng: Any) -> Any:
    """Another plausible value; None also where nothing is known."""
    if key in CHOICES:
        return rng.choice(CHOICES[key])
    inner, is_optional = without_none(annotation)
    if is_optional and value is not None and rng.random() < 0.3:
        return None
    return _of_type(inner, value, rng)


def _of_type(annotation: Any, value: Any, rng: Any) -> Any:
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of_type(members[0], value, rng)
    if origin is Literal:
        return rng.choice([choice for choice in members if choice != value] or [value])
    if is_class(annotation) and issubclass(annotation, Enum):
        return rng.choice([m.value for m in annotation if m.value != value] or [value])
    if isinstance(value, bool) or annotation is bool:
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value * 2, max(value - 1, 0)])
    if isinstance(value, float):
        return rng.choice([value * 0.5, value * 1.5, value + 0.125, 0.0])
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list | tuple) and value:
        changed = list(value)
        i = rng.randrange(len(changed))
        entries = [m for m in members if m is not Ellipsis] or [Any]
        changed[i] = _of_type(entries[min(i, len(entries) - 1)], changed[i], rng)
        return rng.choice([changed, list(value)[::-1], list(value)[:-1]])
    if annotation is int:
        return rng.randrange(1, 5)
    if annotation is float:
        return rng.choice([0.01, 0.5, 2.0])
    return value
