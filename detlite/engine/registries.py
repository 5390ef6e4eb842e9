"""The registry of hooks."""

from ..registry import Registry
from .hook_base import HookBase

HOOK_REGISTRY = Registry(
    "hook",
    HookBase,
    computed={
        "schedule": "`solver.schedule`",
        "checkpointer": "`output_dir`",
        "output_dir": "`output_dir`",
        "test_loaders": "`data.test`",
        "evaluate": "`test`",
        "batch_size": "`data.batch_size`",
        "config_yaml": "the whole config",
        "log_records": "what was logged while the run was built",
    },
    shared_keys={"enabled": (bool, True)},
)
