"""How a config may differ from the one of the checkpoint that a run goes on from.

``RULES`` says for each key what becomes of a change; docs/training.md has the same as a table.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from ..config.check import Checker
from ..config.schema import Config
from ..config.tree import parse_yaml
from ..errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

Fate = Literal["applied", "without effect", "refused"]
_FATES: tuple[Fate, ...] = ("applied", "without effect", "refused")
_MAX_LISTED = 20
_MAX_VALUE = 60


@dataclass(frozen=True)
class Rule:
    """What becomes of changes of some keys.

    Attributes:
        pattern: Of dotted keys; ``*`` stands for anything, dots included.
        fate: "applied": as the present config says from the next iteration on; "without effect"
            on a run that has begun; "refused": the run does not go on.
        note: What that means, or why.
    """

    pattern: str
    fate: Fate
    note: str = ""


# The first that matches counts. What no rule names is applied, since the present config builds
# everything; so are the keys of users' components.
RULES = (
    Rule("classes", "refused", "the model's outputs stand for the checkpoint's classes"),
    Rule("model.name", "refused", "another architecture"),
    Rule("model.backbone.name", "refused", "another architecture"),
    Rule("model.neck.name", "refused", "another architecture"),
    Rule("model.head.name", "refused", "another architecture"),
    Rule("model.backbone.stride_in_1x1", "refused", "another architecture"),
    Rule("model.backbone.avg_down", "refused", "another architecture"),
    Rule("model.box_coder*", "refused", "the weights predict boxes in the checkpoint's code"),
    Rule("model.anchor_generator*", "refused", "the weights predict for the checkpoint's anchors"),
    Rule("model.preprocessor", "refused", "the weights expect the checkpoint's input"),
    Rule("model.preprocessor.name", "refused", "the weights expect the checkpoint's input"),
    Rule("model.preprocessor.mean", "refused", "the weights expect the checkpoint's input"),
    Rule("model.preprocessor.std", "refused", "the weights expect the checkpoint's input"),
    Rule(
        "model.preprocessor.channel_order", "refused", "the weights expect the checkpoint's input"
    ),
    Rule("solver.optimizer.name", "refused", "the state of one optimizer is none of another's"),
    Rule("model.weights*", "without effect", "the weights are the checkpoint's"),
    Rule("model.backbone.pretrained", "without effect", "the weights are the checkpoint's"),
    Rule("model.backbone.zero_init_residual", "without effect", "used when a run begins"),
    Rule("model.*.init", "without effect", "used when a run begins"),
    Rule("model.head.prior_prob", "without effect", "used when a run begins"),
    Rule("model.loss_normalizer.initial", "without effect", "used when a run begins"),
    Rule("solver.optimizer.initial_accumulator_value", "without effect", "used when a run begins"),
    Rule("model.*", "applied", "where all weights fit; else the architecture is refused"),
    Rule("seed", "applied", "from here on with other random numbers"),
    Rule("output_dir", "applied", "the folder was moved or copied"),
    Rule("data.batch_size", "applied", "iteration i has the images of a run with this batch size"),
    Rule("data.train", "applied", "from the same iteration in the order of the new data"),
    Rule("data.train.*", "applied", "from the same iteration in the order of the new data"),
    Rule("data.sampler*", "applied", "from the same iteration in the new order"),
    Rule("data.test", "applied", "best values so far are forgotten"),
    Rule("data.test.*", "applied", "best values so far are forgotten"),
    Rule("test.evaluators*", "applied", "best values so far are forgotten"),
    Rule("solver.schedule*", "applied", "the rate at an iteration is that of the new schedule"),
    Rule("solver.max_iter", "applied", "the rate at an iteration is that of the new schedule"),
    Rule("solver.freeze*", "applied", "parameters keep the optimizer's state by name"),
    Rule("solver.parameter_groups*", "applied", "parameters keep the optimizer's state by name"),
    Rule("train.ema.decay", "applied", "an average that is new begins with the present weights"),
    Rule("*", "applied"),
)
# Where a checkpoint holds what `auto` had chosen, the run keeps it.
_KEPT_BY_AUTO = ("train.precision", "test.precision", "train.channels_last")
_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """A key with two values.

    Attributes:
        key: Dotted; entries of lists by number.
        before: The checkpoint's value.
        after: The present config's.
    """

    key: str
    before: Any
    after: Any

    @property
    def rule(self) -> Rule:
        """What becomes of it."""
        return next(rule for rule in RULES if fnmatchcase(self.key, rule.pattern))

    def __str__(self) -> str:
        note = f" ({self.rule.note})" if self.rule.note else ""
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}{note}"


@dataclass(frozen=True)
class ResumeChanges:
    """All differences between a checkpoint and the present config.

    Attributes:
        path: The checkpoint.
        changes: In the order of the config's sections.
    """

    path: Path | None
    changes: tuple[Change, ...] = ()

    @classmethod
    def between(
        cls,
        checkpoint: Mapping[str, Any],
        config: Config,
        class_names: Sequence[str],
        path: Path | None,
    ) -> "ResumeChanges":
        """Compare; what a checkpoint of an older version does not hold is not compared."""
        found = []
        before = checkpoint.get("class_names")
        if before is not None and list(before) != list(class_names):
            found.append(Change("classes", list(before), list(class_names)))
        text = checkpoint.get("config")
        if isinstance(text, str):
            values, is_complete = _read(text)
            found += [
                change
                for change in _differences(values, config.to_dict(), "")
                if (is_complete or change.before is not _ABSENT)
                and not (change.key in _KEPT_BY_AUTO and change.after == "auto")
            ]
        return cls(path, tuple(found))

    def of(self, *fates: Fate) -> list[Change]:
        """The changes of some fates."""
        return [change for change in self.changes if change.rule.fate in fates]

    def touches(self, patterns: Iterable[str]) -> bool:
        """Whether a key that one of the patterns matches has changed."""
        return any(fnmatchcase(c.key, pattern) for c in self.changes for pattern in patterns)

    def log(self) -> None:
        """List what is applied and what has no effect, at most one line a key."""
        listed = self.of("applied", "without effect")
        if not listed:
            return
        lines = []
        for fate in _FATES[:2]:
            group = [change for change in listed if change.rule.fate == fate]
            if group:
                lines += [f"  {fate}:", *(f"    {change}" for change in group)]
        if len(listed) > _MAX_LISTED:
            lines = lines[:_MAX_LISTED] + [f"  and so on, {len(listed)} keys: {_counts(listed)}"]
        logger.info("the config differs from that of %s:\n%s", self.path, "\n".join(lines))

    def check(self) -> None:
        """Refuse what cannot be applied.

        Raises:
            CheckpointError: With every such change, and what to do instead.
        """
        refused = self.of("refused")
        if not refused:
            return
        listed = [str(change) for change in refused]
        if refused[0].key == "classes":
            # What the classes come from.
            data = [change for change in self.changes if change.key.startswith("data.train")]
            listed += [f"{c.key}: {_shown(c.before)} -> {_shown(c.after)}" for c in data]
        raise CheckpointError(
            f"--resume cannot go on from {self.path} with this config:\n"
            + "".join(f"    {line}\n" for line in listed[:_MAX_LISTED])
            + self._remedy(refused)
        )

    def refusal(self, error: CheckpointError, pattern: str) -> CheckpointError:
        """An error of what does not fit the checkpoint, with the keys that may be the cause."""
        may_be = [c for c in self.of("applied") if fnmatchcase(c.key, pattern)]
        if not may_be:
            return error
        listed = "".join(f"    {c.key}: {_shown(c.before)} -> {_shown(c.after)}\n" for c in may_be)
        reason = str(error).splitlines()[0]
        return CheckpointError(f"--resume: {reason}\n{listed}{self._remedy(may_be)}")

    def _remedy(self, changed: Sequence[Change]) -> str:
        words = "Restore what has changed"
        classes = [change for change in changed if change.key == "classes"]
        by_name = ""
        if classes:
            words = f"Restore the classes (`classes: {_shown(classes[0].before)}` of the data sets)"
            words += " and the rest" if len(changed) > 1 else ""
            by_name = ", where class rows are mapped by name"
        return (
            f"    {words}, or begin a new run with these weights{by_name}: "
            f"output_dir=ANOTHER --weights {self.path}"
        )


def _read(text: str) -> tuple[dict[str, Any], bool]:
    """A checkpoint's config, and whether it could be completed with keys that came later.

    Nothing that it imports is run.
    """
    try:
        tree = parse_yaml(text, "the checkpoint's config")
    except ConfigError as error:
        logger.warning("what has changed since the checkpoint cannot be listed: %s", error)
        return {}, False
    checker = Checker(tree)
    config = checker.section(Config, tree.values, ())
    if checker.problems or config is None:
        return tree.values, False
    return config.to_dict(), True


def _differences(before: Any, after: Any, path: str) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        if before.get("name", _ABSENT) != after.get("name", _ABSENT) and path:
            yield Change(f"{path}.name", before.get("name", _ABSENT), after.get("name", _ABSENT))
            return
        for key in [*after, *(key for key in before if key not in after)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key, _ABSENT), after.get(key, _ABSENT), inner)
    elif _is_list_of_blocks(before) and _is_list_of_blocks(after):
        yield from _list_differences(before, after, path)
    elif not _same(before, after):
        yield Change(path, before, after)


def _list_differences(before: list[Any], after: list[Any], path: str) -> Iterator[Change]:
    """Entries are paired by their name and its number, as hooks are in checkpoints."""
    if [_name(entry) for entry in before] != [_name(entry) for entry in after]:
        yield Change(path, before, after)
    known = dict(_numbered(before))
    for i, (name, entry) in enumerate(_numbered(after)):
        if name in known:
            yield from _differences(known[name], entry, f"{path}.{i}")


def _numbered(entries: list[Any]) -> Iterator[tuple[tuple[Any, int], Any]]:
    names = [_name(entry) for entry in entries]
    for i, (name, entry) in enumerate(zip(names, entries, strict=True)):
        yield (name, names[:i].count(name)), entry


def _name(entry: Any) -> str:
    return str(entry.get("name", "")) if isinstance(entry, Mapping) else ""


def _is_list_of_blocks(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bool) != isinstance(after, bool):
        return False
    return bool(before == after) or (before != before and after != after)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    if _is_list_of_blocks(value) and value and all(map(_name, value)):
        value = [_name(entry) for entry in value]
    text = " ".join(_as_yaml(value).split())
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 4]} ..."


def _as_yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_as_yaml(entry)}' for key, entry in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if str(value).strip() else "''"


def _counts(changes: Sequence[Change]) -> str:
    sections = [change.key.partition(".")[0] for change in changes]
    return ", ".join(f"{sections.count(name)} of {name}" for name in dict.fromkeys(sections))
