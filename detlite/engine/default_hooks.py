"""Which hooks a run has, and in which order they are called."""

from typing import Any

from ..config.schema import Config
from ..errors import ConfigError
from ..registry import Block
from ..utils.distributed import is_main_process
from .hook_base import HookBase
from .registries import HOOK_REGISTRY

# What writes files or logs, which only the main process does.
_MAIN_PROCESS_ONLY = {
    "ConsoleWriter",
    "JSONWriter",
    "TensorBoardWriter",
    "ProgressBar",
    "RunSummary",
    "PredictionPictures",
    "WandbWriter",
    "MLflowWriter",
}


def build_hooks(config: Config, **computed: Any) -> list[HookBase]:
    """Build the default hooks and those of ``train.hooks``, in the order in which they are called.

    Args:
        config: The whole config.
        computed: What hooks are given beside their keys, see ``HOOK_REGISTRY``.
    """
    train = config.train
    first = [
        Block(name="IterationTimer"),  # first, so that it times what follows
        Block(name="RunFolder"),
        Block(name="StopSignals"),
        Block(name="NonFiniteLossCheck"),  # before anything uses the gradients
        Block(name="LRScheduler"),
    ]
    if config.data.test:
        first += [
            Block(name="Evaluation", period=config.test.eval_period),
            Block(name="BestCheckpointer"),  # uses the evaluation
        ]
    last = [
        Block(name="MetricSummary", period=train.log_period),  # for the writers, so before them
        Block(name="ConsoleWriter"),
        Block(name="JSONWriter"),
        Block(name="TensorBoardWriter"),
        Block(name="ProgressBar"),  # after what may take long, so that it counts finished steps
        Block(name="RunSummary"),
        # Last of all: a checkpoint of an iteration says that everything of it has been written.
        Block(name="PeriodicCheckpointer", period=train.checkpoint_period),
    ]
    # A null, such as a period that is not given, leaves what the sections say.
    given = [
        Block({key: value for key, value in block.items() if value is not None})
        for block in train.hooks
    ]
    named = {block.name for block in (*first, *last)}
    own = {block.name: block for block in given if block.name in named}
    users = [block for block in given if block.name not in named]
    # What judges an evaluation stands right behind it; writers stand behind the summary.
    judges = [block for block in users if block.name == "ValidationLoss"]
    if judges and not config.data.test:
        raise ConfigError("hook 'ValidationLoss' needs a data set under data.test")
    writers = [block for block in users if block.name.endswith("Writer")]
    others = [block for block in users if block not in judges and block not in writers]
    place = [block.name for block in first].index("LRScheduler") + 1
    place += bool(config.data.test)
    first[place:place] = judges
    place = [block.name for block in last].index("ProgressBar")
    last[place:place] = writers
    blocks = [Block({**block, **own.pop(block.name, {})}) for block in (*first, *others, *last)]
    if not is_main_process():
        blocks = [block for block in blocks if block.name not in _MAIN_PROCESS_ONLY]
    computed["output_dir"] = config.output_dir
    return [HOOK_REGISTRY.build(b, **computed) for b in blocks if b.get("enabled", True)]
