"""From a config to a model and a trainer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import (
    Checkpointer,
    LoadOptions,
    load_checkpoint,
    load_pretrained,
    load_weights,
    save_atomically,
)
from ..config.schema import Config, SolverSection
from ..data import (
    Loader,
    build_datasets,
    build_test_loader,
    build_train_loader,
    check_class_count,
    check_test_classes,
)
from ..errors import CheckpointError, ConfigError, UserError
from ..evaluation import EVALUATOR_REGISTRY, inference_on_dataset
from ..modeling import MetaArch, build_meta_arch
from ..registry import Block
from ..solver import SCHEDULE_REGISTRY, build_optimizer
from ..utils.distributed import is_main_process
from .ema import ModelEMA
from .hook_base import HookBase
from .registries import HOOK_REGISTRY
from .trainer import Trainer, autocast

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module], dict[str, Any]]


def build_model(
    config: Config, class_names: Sequence[str] | None = None, *, complete: bool = False
) -> MetaArch:
    """Build the model of a config, on its device, with ``model.weights`` if it names any.

    Args:
        config: The whole config.
        class_names: None: those of the training data, whose annotations are read for it.
        complete: The weights must hold every tensor of the model, which will not be trained.

    Raises:
        CheckpointError: The weights cannot be read, or do not fit.
    """
    if class_names is None:
        datasets = build_datasets(config.data.train, "data.train")
        check_class_count(config.data, datasets[0])
        class_names = datasets[0].class_names
    model = _new_model(config, class_names)
    if config.model.weights:
        load_pretrained(
            model,
            config.model.weights,
            class_names,
            model_block=config.model,
            options=LoadOptions(
                class_names=config.model.weights_class_names,
                threshold=config.model.weights_threshold,
                complete=complete,
            ),
        )
    return model


def _new_model(config: Config, class_names: Sequence[str]) -> MetaArch:
    """The model of a config on its device, with the weights that it begins with."""
    device = select_device(config.device)
    torch.manual_seed(config.seed)
    model = build_meta_arch(config.model, class_names)
    if device.type == "cpu" and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
        raise ConfigError("norm SyncBN needs GPUs, and device is the cpu; use BN instead")
    memory_format = torch.channels_last if config.train.channels_last else torch.preserve_format
    return model.to(device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def build_trainer(config: Config, *, resume: bool = False) -> Trainer:
    """Build everything that a run needs.

    Args:
        config: The whole config.
        resume: Go on from the last checkpoint in ``output_dir``, if there is one.

    Raises:
        UserError: A part does not fit; the message says which and why.
    """
    datasets = build_datasets(config.data.train, "data.train")
    check_class_count(config.data, datasets[0])
    class_names = datasets[0].class_names
    test_loaders = build_test_loaders(config, class_names)
    checkpointer = Checkpointer(
        config.output_dir,
        keep=config.train.checkpoint_keep,
        identity={"config": config.to_yaml(), "class_names": list(class_names)},
    )
    checkpoint = _last_checkpoint(checkpointer) if resume else None
    # A run that goes on needs no weights to begin with.
    model = (_new_model if checkpoint else build_model)(config, class_names)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    logger.info(
        "%s with %.2fM parameters, %.2fM of them trained",
        config.model.name,
        sum(size for size, _ in sizes) / 1e6,
        sum(size for size, trained in sizes if trained) / 1e6,
    )
    solver, train = config.solver, config.train
    optimizer, schedule = _build_solver(solver, model)
    start = int(checkpoint["iteration"]) + 1 if checkpoint else 0
    trainer = Trainer(
        model,
        optimizer,
        build_train_loader(config, datasets, start=start),
        max_iter=solver.max_iter,
        hooks=build_hooks(
            config,
            schedule=schedule,
            checkpointer=checkpointer,
            test_loaders=test_loaders,
            evaluate=lambda model: evaluate_model(config, model, test_loaders),
        ),
        precision=train.precision,
        clip_gradients=solver.clip_gradients,
        ema=ModelEMA(model, decay=train.ema.decay, warmup=train.ema.warmup)
        if train.ema.decay
        else None,
    )
    if checkpoint:
        load_weights(model, checkpoint["model"], str(checkpointer.last()))
        trainer.load_state_dict(checkpoint)
        logger.info("going on at iteration %d from %s", start, checkpointer.last())
    if is_main_process():
        save_atomically(config.to_yaml(), Path(config.output_dir) / "config.yaml")
    return trainer


def build_hooks(config: Config, **computed: Any) -> list[HookBase]:
    """Build the default hooks and those of ``train.hooks``, in the order in which they are called.

    Args:
        config: The whole config.
        computed: What hooks are given beside their keys, see ``HOOK_REGISTRY``.
    """
    train = config.train
    defaults = [
        Block(name="IterationTimer"),  # first, so that it times what follows
        Block(name="NonFiniteLossCheck"),  # before anything keeps the step
        Block(name="LRScheduler"),
        Block(name="Evaluation", period=config.test.eval_period),
        Block(name="BestCheckpointer"),  # uses the evaluation
        # After both, so that a checkpoint holds the best value of its own iteration.
        Block(name="PeriodicCheckpointer", period=train.checkpoint_period),
    ]
    writers = [
        Block(name="MetricSummary", period=train.log_period),  # for the writers, so before them
        Block(name="ConsoleWriter"),
        Block(name="JSONWriter"),
        Block(name="TensorBoardWriter"),
        Block(name="ProgressBar"),  # last, so that it counts finished steps
    ]
    named = {block.name for block in (*defaults, *writers)}
    if not config.data.test:
        defaults = [b for b in defaults if b.name not in ("Evaluation", "BestCheckpointer")]
    if not is_main_process():
        quiet = {"BestCheckpointer", "PeriodicCheckpointer", *(b.name for b in writers[1:])}
        defaults = [block for block in defaults if block.name not in quiet]
        writers = writers[:1]
    # A null, such as a period that is not given, leaves what the sections say.
    own = {
        block.name: {key: value for key, value in block.items() if value is not None}
        for block in train.hooks
    }
    blocks = [
        *(Block({**block, **own.get(block.name, {})}) for block in defaults),
        *(block for block in train.hooks if block.name not in named),
        *(Block({**block, **own.get(block.name, {})}) for block in writers),
    ]
    computed["output_dir"] = config.output_dir
    return [HOOK_REGISTRY.build(b, **computed) for b in blocks if b.get("enabled", True)]


def build_test_loaders(config: Config, class_names: Sequence[str] | None = None) -> list[Loader]:
    """Build a loader for each test data set.

    Args:
        config: The whole config.
        class_names: The model's, which those of the data must be; None: the first data set's.
    """
    if not config.data.test:
        return []
    datasets = build_datasets(config.data.test, "data.test")
    names = [dataset.name for dataset in datasets]
    for dataset in datasets:
        check_test_classes(dataset, class_names or datasets[0].class_names)
        if names.count(dataset.name) > 1:
            raise ConfigError(
                f"data.test: {names.count(dataset.name)} data sets are called '{dataset.name}', "
                "and the results of one would replace the other's; give each a `title`"
            )
    return [build_test_loader(config, dataset) for dataset in datasets]


def evaluate_model(
    config: Config, model: nn.Module, test_loaders: Sequence[Loader]
) -> dict[str, Any]:
    """Evaluate a model on each test data set: ``{data set: {task: {metric: value}}}``."""
    results = {}
    device = next(model.parameters()).device
    for loader in test_loaders:
        assert loader.dataset is not None
        name = loader.dataset.name
        folder = Path(config.output_dir) / "inference" / name
        evaluators = [
            EVALUATOR_REGISTRY.build(block, dataset=loader.dataset, output_dir=str(folder))
            for block in config.test.evaluators
        ]
        with autocast(device, config.test.precision):
            results[name] = inference_on_dataset(model, loader, evaluators)
    return results


def select_device(name: str) -> torch.device:
    """The device of a config's ``device``.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is cuda, but torch sees no GPU (`python -m detlite.utils.env` tells what it "
            "sees); use device=auto or device=cpu"
        )
    return torch.device(name)


def _build_solver(
    solver: SolverSection, model: nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    try:
        optimizer = build_optimizer(
            solver.optimizer,
            model,
            weight_decay_norm=solver.weight_decay_norm,
            weight_decay_bias=solver.weight_decay_bias,
        )
        schedule = SCHEDULE_REGISTRY.build(
            solver.schedule, optimizer=optimizer, max_iter=solver.max_iter
        )
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"solver: {error}") from error
    return optimizer, schedule


def _last_checkpoint(checkpointer: Checkpointer) -> Mapping[str, Any] | None:
    path = checkpointer.last()
    if path is None:
        logger.info("no checkpoint in %s to resume from, starting anew", checkpointer.folder)
        return None
    checkpoint = load_checkpoint(path)
    if "optimizer" not in checkpoint:
        raise CheckpointError(f"{path} holds weights only; a run cannot be resumed from it")
    return checkpoint
