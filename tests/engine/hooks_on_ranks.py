"""A run with many hooks on one and on three ranks; what each rank has found, as JSON.

python hooks_on_ranks.py CONFIG FOLDER overrides...
"""

import json
import pathlib
import sys

from ranks import run_ranks

from detlite import build_trainer, load_config
from detlite.engine.hooks import ValidationLoss
from detlite.utils.distributed import rank, world_size


def measure(folder, config_file, overrides):
    """The validation losses of the first weights, then what becomes of a whole run."""
    output = pathlib.Path(folder) / f"run_{world_size()}"
    trainer = build_trainer(load_config(config_file, [*overrides, f"output_dir={output}"]))
    batch_size, max_iter = 3, trainer.max_iter
    trainer.batch = [None] * len(range(rank(), batch_size, world_size()))
    hook = next(h for h in trainer.hooks if isinstance(h, ValidationLoss))
    trainer.max_iter = 1
    hook.after_step(trainer)
    losses = trainer.results["shapes_9"]["val"]
    trainer.max_iter, trainer.results, trainer.results_iter = max_iter, {}, -1
    trainer.buffer.take()
    trainer.train()
    return {
        "first_losses": losses,
        "results": trainer.results["shapes_9"],
        "iter": trainer.iter,
        "stop_reason": trainer.stop_reason,
        "weights": sum(p.double().abs().sum().item() for p in trainer.model.parameters()),
        "hooks": [type(h).__name__ for h in trainer.hooks],
    }


if __name__ == "__main__":
    config_file, folder, *overrides = sys.argv[1:]
    arguments = (folder, config_file, overrides)
    found = {world: run_ranks(measure, world, folder, *arguments) for world in (1, 3)}
    (pathlib.Path(folder) / "found.json").write_text(json.dumps(found))
