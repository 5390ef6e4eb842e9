"""Training and evaluating as the command line says it, in each of the processes."""

import argparse
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path

from ..checkpoint import Checkpointer, RunLock, make_output_dir, save_atomically
from ..config import Config, check_tree, read_tree
from ..engine import (
    build_model,
    build_test_loaders,
    build_trainer,
    check_resume,
    evaluate_model,
)
from ..engine.device import select_device
from ..errors import ConfigError
from ..utils.cli import STOPPED
from ..utils.distributed import (
    is_main_process,
    launch_name,
    leave_distributed,
    on_main_process,
    setup_distributed,
)
from ..utils.env import environment
from ..utils.logger import setup_logger
from ..utils.tables import wrapped

logger = logging.getLogger(__name__)


def run_command(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    overrides = list(arguments.overrides)
    if arguments.weights is not None:
        # As a JSON string, so that YAML takes the path as it is.
        overrides.append(f"model.weights={json.dumps(arguments.weights)}")
    tree = read_tree(arguments.config_file, overrides)
    config = check_tree(tree, arguments.config_file)
    if arguments.print_config:
        print(config.to_yaml(tree), end="")
        return
    setup_distributed(select_device(config.device).type, config.train.collective_timeout)
    try:
        run(arguments, config)
    except SystemExit:  # stopped by a signal, all processes together
        leave_distributed()
        raise
    # After an error the others may be waiting: then torchrun ends them.
    leave_distributed()


def run(arguments: argparse.Namespace, config: Config) -> None:
    """Evaluate, check or train, in each of the processes."""
    if arguments.eval_only:
        evaluate(config, arguments.config_file)
    elif arguments.check_resume:
        setup_logger(main_process=is_main_process())
        tell_resume(config)
    else:
        train(config, resume=arguments.resume, overwrite=arguments.overwrite)


def train(config: Config, *, resume: bool, overwrite: bool) -> None:
    """Train; exits with a code of its own if a signal has ended it before its time."""
    with ExitStack() as held:
        resume = on_main_process(
            lambda: take_output_dir(config, held, resume=resume, overwrite=overwrite)
        )
        setup_logger(config.output_dir, main_process=is_main_process())
        facts = ", ".join(f"{name} {value}" for name, value in environment().items())
        logger.info("environment:\n%s", wrapped(facts))
        trainer = build_trainer(config, resume=resume)
        trainer.train()
        if trainer.stop_reason == "signal":
            logger.info("stopped after iteration %d; --resume goes on", trainer.iter)
            sys.exit(STOPPED)
        logger.info("done; everything is in %s", config.output_dir)


def tell_resume(config: Config) -> None:
    """Say whether an interrupted run of this config ends in the same bits."""
    report = check_resume(config)
    if not report.differences:
        logger.info(
            "exact: interrupted after iteration %d, resumed, and after iteration %d all %d values "
            "of the checkpoint are equal bit for bit, and so are the %d images seen",
            report.interrupted_at - 1,
            report.iterations - 1,
            report.num_values,
            report.samples,
        )
        return
    shown = "\n".join(f"    {line}" for line in report.differences[:10])
    raise ConfigError(
        f"a resumed run of this config differs in {len(report.differences)} of {report.num_values} "
        f"values:\n{shown}\n    A component that draws random numbers in another process, reads "
        "a clock or keeps state of its own outside state_dict() may be the cause; on a GPU set "
        "train.deterministic=true"
    )


def evaluate(config: Config, config_file: str) -> None:
    """Evaluate ``model.weights``, or what the last run in ``output_dir`` made."""
    setup_logger(main_process=is_main_process())
    if not config.model.weights:
        final = Path(config.output_dir) / "model_final.pth"
        if not final.is_file():
            raise ConfigError(
                f"--eval-only needs weights: give --weights PATH (there is no {final} either)"
            )
        config.model["weights"] = str(final)
    if not config.data.test:
        raise ConfigError(f"--eval-only needs a data set under data.test in {config_file}")
    on_main_process(lambda: make_output_dir(config.output_dir))
    loaders = build_test_loaders(config)
    dataset = loaders[0].dataset
    assert dataset is not None
    evaluate_model(config, build_model(config, dataset.class_names, complete=True), loaders)


def take_output_dir(config: Config, held: ExitStack, *, resume: bool, overwrite: bool) -> bool:
    """Lock the folder of the run and protect what an earlier one has left; whether to go on."""
    held.enter_context(RunLock(config.output_dir))
    # torchrun starts the same command again after a death, and when a machine joins or leaves.
    launch, marker = launch_name(), Path(config.output_dir) / ".launch"
    if launch is not None and not resume:
        begun_by = marker.read_text() if marker.is_file() else ""
        resume = begun_by == launch
        same_job = begun_by.partition("\n")[0] == launch.partition("\n")[0] != "none"
        if overwrite and same_job and not resume:
            raise ConfigError(
                f"output_dir {config.output_dir} holds a run that this job has begun on another "
                "machine, or an earlier job of the same --rdzv-id; --overwrite would remove it. "
                "Give --resume to go on with it, or another --rdzv-id"
            )
    earlier = Checkpointer(config.output_dir, keep=1, identity={})
    if not resume and overwrite:
        earlier.remove_run()
    elif not resume:
        check_output_dir(config)
    earlier.remove_leftovers()
    if launch is not None:
        save_atomically(launch, marker)
    return resume


def check_output_dir(config: Config) -> None:
    """Protect an earlier run's files."""
    folder = Path(config.output_dir)
    if (folder / "last_checkpoint").exists() or any(folder.glob("model_*.pth")):
        raise ConfigError(
            f"output_dir {config.output_dir} holds a run already; --resume goes on with it, "
            "output_dir=ANOTHER keeps it, --overwrite begins anew in it"
        )
