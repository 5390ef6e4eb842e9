"""The registries of optimizers and schedules; torch's own classes need no registration."""

import torch

from ..registry import Registry

OPTIMIZER_REGISTRY = Registry(
    "optimizer",
    torch.optim.Optimizer,
    computed={"params": "the model"},
    modules=(torch.optim,),
)
SCHEDULE_REGISTRY = Registry(
    "schedule",
    torch.optim.lr_scheduler.LRScheduler,
    computed={
        "optimizer": "`solver.optimizer`",
        "max_iter": "`solver.max_iter`",
        "last_epoch": "the iteration of the run",
    },
    modules=(torch.optim.lr_scheduler,),
)
