"""Run the checks of one component, and those of a file."""

import traceback
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..registry import Registry, filled_registries
from . import (  # noqa: F401  # importing them fills the catalogue
    data,
    detections,
    heads,
    key_rules,
    losses,
    models,
    modules,
    pyramids,
    runs,
    targets,
)
from .blocks import complete_block
from .catalogue import Check, checks_of
from .report import Broken, NotApplicable, OtherKind, Outcome, Report
from .subject import Subject, Surroundings


def check_component(
    kind: str,
    name: str,
    keys: Mapping[str, Any] | None = None,
    *,
    around: Surroundings | None = None,
    compile: bool = False,
) -> Report:
    """Check that a registered component keeps the contract of its kind.

    Args:
        kind: What it is, e.g. "backbone", "neck", "head", "matcher", "loss", "transform".
        name: Its name.
        keys: Values of its config keys, as in a block; those that are not given have their
            default.
        around: The rest of the model; a small one if not given.
        compile: Also try ``torch.compile``, which takes seconds.

    Raises:
        ConformanceError: It does not; the message is the report.
        ConfigError: There is no such component, or its keys are wrong.
    """
    registries = filled_registries()
    if kind not in registries:
        raise ConfigError(f"no kind of component '{kind}'; known: {', '.join(registries)}")
    report = examine(
        registries[kind], {"name": name, **(keys or {})}, around or Surroundings(), compile=compile
    )
    report.raise_if_failed()
    return report


def examine(
    registry: Registry, block: Mapping[str, Any], around: Surroundings, *, compile: bool = False
) -> Report:
    """Run all checks of a component.

    Raises:
        ConfigError: There is no such component, or its keys are wrong.
    """
    component = registry.get(block["name"])
    subject = Subject(registry, complete_block(registry, block), component, around, compile)
    outcomes = [_outcome(check, subject) for check in checks_of(registry.kind)]
    return Report(registry.kind, block["name"], tuple(filter(None, outcomes)))


def _outcome(check: Check, subject: Subject) -> Outcome | None:
    try:
        check.function(subject)
    except OtherKind:
        return None
    except NotApplicable as reason:
        return Outcome(check.title, "skipped", f"{reason}")
    except Broken as broken:
        return Outcome(check.title, "FAILED", f"{broken}", check.contract())
    except Exception as error:
        return Outcome(check.title, "FAILED", _told(error), check.contract())
    return Outcome(check.title, "ok")


def _told(error: Exception) -> str:
    """An error that came out of the component, with the line that raised it."""
    place = ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/torch/" not in frame.filename
    ]
    if frames:
        place = f"\n{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"
    return f"{type(error).__name__}: {error}{place}"
