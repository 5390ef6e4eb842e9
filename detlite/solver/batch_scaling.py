"""A config for another batch size: ``solver.reference_batch_size``.

The numbers of the config are for the reference; ``data.batch_size`` is k times as large. Then

- learning rates are multiplied by k, the linear scaling rule (Goyal et al. 2017, section 2.1,
  https://arxiv.org/abs/1706.02677),
- iterations and periods are divided by k and rounded to the nearest, halves up; what is not 0 stays
  at least 1, and milestones that rose still rise,
- shares kept per iteration, as the decay of the moving average, are raised to the power k; where
  the average has a period, that is divided by k, and the power is what rounding has left of k,

so that the run sees the same number of images, and at the same image (nearly) the same multiple of
k times the old rate; learning rate times iterations stays, and with it what weight decay does.
Shares and factors, momentum, weight decay, ``train.log_period`` and limits of the gradient stay.
"""

import copy
import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..config.schema import Config, EMASection
from ..errors import ConfigError
from ..registry import Block, filled_registries
from ..utils.tables import fitted_table
from .iteration_keys import Meaning, check_marked, key_meanings

logger = logging.getLogger(__name__)

# Its period is train.log_period by another name.
_LOG_HOOKS = ("MetricSummary",)
_WORDS = {"iterations": "/ k", "rate": "x k", "decay": "^ k"}


@dataclass(frozen=True)
class ScaledKey:
    """A value of the config before and after."""

    key: str
    written: Any
    meaning: Meaning
    used: Any


def scale_to_batch(config: Config) -> Config:
    """Scale a config from ``solver.reference_batch_size`` to ``data.batch_size``; log how.

    Returns:
        A config without reference, so that the run that it is written by can be repeated from it;
        the same object if it had none to begin with.

    Raises:
        ConfigError: A component does not say which of its numbers count iterations, or there are
            fewer iterations than milestones.
    """
    reference, batch = config.solver.reference_batch_size, config.data.batch_size
    if reference is None:
        return config
    scaled = copy.deepcopy(config)
    scaled.solver.reference_batch_size = None
    if reference == batch:
        logger.info("data.batch_size is solver.reference_batch_size, %d: nothing to scale", batch)
        return scaled
    scale = _Scale(Fraction(batch, reference), config.solver.max_iter)
    rows = []
    for section, name, key, meaning in _scaled_keys(scaled):
        written = _read(section, name)
        if written is None:
            continue
        used = scale(written, meaning, key)
        if used != written:
            _write(section, name, used)
            rows.append(ScaledKey(key, written, meaning, used))
    if scaled.train.ema.decay:
        rows += _scale_average(scaled.train.ema, Fraction(batch, reference))
    logger.info("%s", scaling_table(rows, config, scaled))
    return scaled


def scaling_table(rows: list[ScaledKey], config: Config, scaled: Config) -> str:
    """The arithmetic in a table."""
    reference, batch = config.solver.reference_batch_size, config.data.batch_size
    cells = [(row.key, _text(row.written), _WORDS[row.meaning], _text(row.used)) for row in rows]
    assert reference is not None
    images = (config.solver.max_iter * reference, scaled.solver.max_iter * batch)
    cells.append(("images in the run", str(images[0]), "", str(images[1])))
    table = fitted_table(cells, ("key", "written", "", "used"), disable_numparse=True)
    return (
        f"scaled from solver.reference_batch_size {reference} to data.batch_size {batch}, "
        f"k = {batch}/{reference} = {batch / reference:.6g}:\n{table}"
    )


def _scaled_keys(config: Config) -> Iterator[tuple[Any, str, str, Meaning]]:
    """What is scaled: its section or block, its name in it, its whole key, and what it means."""
    solver, train, registries = config.solver, config.train, filled_registries()
    optimizer = {"lr": "rate"} | key_meanings(registries["optimizer"], solver.optimizer)
    yield from _of_block(solver.optimizer, "solver.optimizer", optimizer)
    _count_steps(solver.schedule)
    check_marked(registries["schedule"], solver.schedule)
    schedule = key_meanings(registries["schedule"], solver.schedule)
    yield from _of_block(solver.schedule, "solver.schedule", schedule)
    yield solver, "max_iter", "solver.max_iter", "iterations"
    yield train, "checkpoint_period", "train.checkpoint_period", "iterations"
    yield config.test, "eval_period", "test.eval_period", "iterations"
    for i, block in enumerate(train.hooks):
        if block.name not in _LOG_HOOKS:
            meanings = {"period": "iterations"} | key_meanings(registries["hook"], block)
            yield from _of_block(block, f"train.hooks.{i}", meanings)


def _scale_average(ema: EMASection, k: Fraction) -> list[ScaledKey]:
    written = vars(ema).copy()
    ema.start = _divided(ema.start, k)
    # A period of 1 stays: the average takes in every step.
    ema.period = _divided(ema.period, k) if ema.period > 1 else 1
    images = k * Fraction(ema.period, written["period"])  # from update to update, times as many
    ema.decay, ema.warmup = ema.decay ** float(images), _divided(ema.warmup, images)
    meanings: dict[str, Meaning] = dict.fromkeys(("warmup", "period", "start"), "iterations")
    meanings["decay"] = "decay"
    return [
        ScaledKey(f"train.ema.{name}", value, meanings[name], getattr(ema, name))
        for name, value in written.items()
        if getattr(ema, name) != value
    ]


def _divided(number: int, k: Fraction) -> int:
    return max(math.floor(number / k + Fraction(1, 2)), 1) if number else number


def _of_block(
    block: Block, path: str, meanings: dict[str, Any]
) -> Iterator[tuple[Block, str, str, Meaning]]:
    for name, meaning in meanings.items():
        if name in block:
            yield block, name, f"{path}.{name}", meaning


def _count_steps(schedule: Block) -> None:
    # A rounded number of steps in an epoch, times epochs, could end before the run does.
    if schedule.name == "OneCycleLR" and not schedule.get("total_steps"):
        epochs, steps = schedule.get("epochs"), schedule.get("steps_per_epoch")
        if epochs and steps:
            schedule |= {"total_steps": epochs * steps, "epochs": None, "steps_per_epoch": None}


@dataclass(frozen=True)
class _Scale:
    """How many times the batch, and how long the run is before and after."""

    k: Fraction
    written_end: int

    def __call__(self, value: Any, meaning: Meaning, key: str) -> Any:
        if isinstance(value, list | tuple):
            scaled = [self(entry, meaning, key) for entry in value]
            return self._rising(list(value), scaled, key) if meaning == "iterations" else scaled
        if meaning == "iterations":
            return self.iterations(value)
        return value * float(self.k) if meaning == "rate" else value ** float(self.k)

    def iterations(self, number: int) -> int:
        return _divided(number, self.k)

    def _rising(self, written: list[int], scaled: list[int], key: str) -> list[int]:
        """Part entries that rounding has made equal, and keep within the run what was in it."""
        end = self.iterations(self.written_end)
        fits = list(scaled)
        rises = [b > a for a, b in itertools.pairwise(written)]
        for i in range(1, len(fits)):
            fits[i] = max(fits[i], fits[i - 1] + 1) if rises[i - 1] else fits[i]
        for i in reversed(range(len(fits))):
            if written[i] <= self.written_end:
                fits[i] = min(fits[i], end)
            if i + 1 < len(fits) and rises[i]:
                fits[i] = min(fits[i], fits[i + 1] - 1)
        if any(after < 1 <= before for before, after in zip(written, fits, strict=True)):
            raise ConfigError(
                f"solver.reference_batch_size: {key} {_text(written)} would have to fit into {end} "
                "iterations at this data.batch_size, and there are too many of them; take some "
                "out, or a smaller batch"
            )
        return fits


def _read(section: Any, name: str) -> Any:
    return section[name] if isinstance(section, Block) else getattr(section, name)


def _write(section: Any, name: str, value: Any) -> None:
    if isinstance(section, Block):
        section[name] = value
    else:
        setattr(section, name, value)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(entry) for entry in value)}]"
    return f"{value:.8g}" if isinstance(value, float) else str(value)
