"""From a config to a model and a trainer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import (
    Checkpointer,
    LoadOptions,
    load_pretrained,
    load_weights,
)
from ..config.schema import Config
from ..data import build_datasets, build_train_loader, check_class_count
from ..errors import CheckpointError, ConfigError, UserError
from ..modeling import MetaArch, build_meta_arch
from ..solver import (
    FreshSolver,
    build_optimizer,
    build_schedule,
    freeze_parameters,
    frozen_norms,
    scale_to_batch,
)
from ..utils.distributed import broadcast_object, is_main_process, rank
from ..utils.logger import kept_records, setup_default_logger
from ..utils.random_state import RandomState
from .check_task import check_task
from .default_hooks import build_hooks
from .device import select_device, use_deterministic_algorithms
from .ema import ModelEMA
from .evaluate import build_test_loaders, evaluate_model
from .precision import memory_format, settle_precision
from .resume_changes import ResumeChanges
from .resuming import ResumedState
from .trainer import Trainer

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
        check_task(config)
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
    layout = memory_format(config.train.channels_last, config.train.precision, device)
    return model.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def build_trainer(config: Config, *, resume: bool = False) -> Trainer:
    """Build everything that a run needs; it writes nothing, the run makes its folder.

    Where the program has not set logging up, the log goes to the terminal from here on; while the
    run goes on it is also written to ``output_dir/log.txt``, with the lines of building.

    With ``solver.reference_batch_size`` the run is that of ``scale_to_batch(config)``.

    Args:
        config: The whole config.
        resume: Go on from the last good checkpoint in ``output_dir``, if there is one.

    Raises:
        UserError: A part does not fit; the message says which and why.
    """
    setup_default_logger(main_process=is_main_process())
    with kept_records() as log_records:
        return _build_trainer(config, log_records, resume=resume)


def _build_trainer(
    config: Config, log_records: list[logging.LogRecord], *, resume: bool
) -> Trainer:
    check_task(config)
    config = scale_to_batch(config)
    if config.train.deterministic:
        use_deterministic_algorithms()
    logger.info("reading the annotations of data.train and data.test")
    datasets = build_datasets(config.data.train, "data.train")
    check_class_count(config.data, datasets[0])
    class_names = datasets[0].class_names
    test_loaders = build_test_loaders(config, class_names)
    checkpointer = Checkpointer(
        config.output_dir,
        keep=config.train.checkpoint_keep,
        identity={"class_names": list(class_names)},
    )
    last_checkpoint = _LastCheckpoint(checkpointer)
    path, checkpoint = (last_checkpoint() if resume else None) or (None, {})
    if resume and not checkpoint:
        logger.info("no checkpoint in %s to resume from, starting anew", checkpointer.folder)
    device = select_device(config.device)
    config, precision, test_precision = settle_precision(config, device, checkpoint)
    checkpointer.identity["config"] = config.to_yaml()
    changes = ResumeChanges.between(checkpoint, config, class_names, path)
    changes.check()
    # A run that goes on needs no weights to begin with.
    model = (_new_model if checkpoint else build_model)(config, class_names)
    freeze_parameters(model, config.solver.freeze)
    _tell_sizes(config, model)
    if checkpoint:
        _load_weights(model, checkpoint, changes)
    start = int(checkpoint["iteration"]) + 1 if checkpoint else 0
    solver, schedule = _build_solver(config, model)
    train = config.train
    trainer = Trainer(
        model,
        solver.optimizer,
        build_train_loader(config, datasets, start=start),
        max_iter=config.solver.max_iter,
        hooks=build_hooks(
            config,
            schedule=schedule,
            checkpointer=checkpointer,
            test_loaders=test_loaders,
            batch_size=config.data.batch_size,
            config_yaml=config.to_yaml(),
            log_records=log_records,
            evaluate=partial(
                evaluate_model, config, test_loaders=test_loaders, precision=test_precision
            ),
        ),
        precision=precision,
        clip_gradients=config.solver.clip_gradients,
        ema=ModelEMA(model, **vars(train.ema)) if train.ema.decay else None,
        accumulate=train.accumulate,
        kept_in_eval=frozen_norms(model),
    )
    trainer.last_checkpoint = resumed = ResumedState(
        config, class_names, solver, trainer, last_checkpoint
    )
    # All generators, also those of Python and numpy; from here on each rank draws its own.
    RandomState.seed_all(config.seed, rank())
    if checkpoint:
        trainer.load_state_dict(resumed.applied(checkpoint, changes))
        changes.log()
        _tell_start(config, start, path)
    return trainer


class _LastCheckpoint:
    """Reads the last good checkpoint in the main process, and hands it to all."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer

    def __call__(self) -> tuple[Path, Mapping[str, Any]] | None:
        found, error = None, None
        if is_main_process():
            try:
                self.checkpointer.wait()
                found = self.checkpointer.last_good()
            except UserError as caught:
                error = caught
        # The other processes may be on machines that do not see the file, or see it later.
        found, error = broadcast_object((found, error))
        if error is not None:
            raise error
        return found


def _load_weights(model: nn.Module, checkpoint: Mapping[str, Any], changes: ResumeChanges) -> None:
    try:
        load_weights(model, checkpoint["model"], str(changes.path))
    except CheckpointError as error:
        raise changes.refusal(error, "model.*") from None


def _tell_start(config: Config, start: int, path: Path | None) -> None:
    logger.info("going on at iteration %d from %s", start, path)
    if start > config.solver.max_iter:
        logger.warning(
            "solver.max_iter is %d, and %d iterations are done: the run ends at once",
            config.solver.max_iter,
            start,
        )


def _tell_sizes(config: Config, model: nn.Module) -> None:
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    logger.info(
        "%s with %.2fM parameters, %.2fM of them trained",
        config.model.name,
        sum(size for size, _ in sizes) / 1e6,
        sum(size for size, trained in sizes if trained) / 1e6,
    )


def _build_solver(
    config: Config, model: nn.Module
) -> tuple[FreshSolver, torch.optim.lr_scheduler.LRScheduler]:
    solver = config.solver
    try:
        optimizer = build_optimizer(
            solver.optimizer,
            model,
            weight_decay_norm=solver.weight_decay_norm,
            weight_decay_bias=solver.weight_decay_bias,
            parameter_groups=solver.parameter_groups,
            layer_decay=solver.layer_decay,
        )
        schedule_of = partial(build_schedule, solver.schedule, max_iter=solver.max_iter)
        fresh = FreshSolver.of(optimizer, solver.optimizer, schedule_of)
        schedule = schedule_of(optimizer)
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"solver: {error}") from error
    return fresh, schedule
