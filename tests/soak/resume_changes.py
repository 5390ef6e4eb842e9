"""Resume small runs with one changed key each, and see that each change does what is documented.

python tests/soak/resume_changes.py                      # 200 changes, about 10 minutes on a core
python tests/soak/resume_changes.py --count 40 --seed 7
python tests/soak/resume_changes.py --only 'solver.*'

A run of two iterations is resumed for two more. Each time this is checked:

- there is no error but one that tells the user what to do;
- the log, or the error, names every key that has changed;
- what is applied: learning rates, weight decays and momenta at each iteration are those of an
  optimizer and a schedule that were built from the new config and made all steps, the images are
  those of a new run at these iterations, and the checkpoint holds the new config;
- what has no effect: the weights are those of an unchanged run;
- what is refused: every file of the run is as before.

Exits with 1 and a list where something is wrong.
"""

import argparse
import copy
import json
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

# One thread: the same sums in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from detlite import HookBase, UserError, build_model, build_trainer, load_config
from detlite.checkpoint import load_checkpoint
from detlite.config.loader import import_component, parse_yaml
from detlite.data import build_datasets, build_train_loader
from detlite.engine.resume_changes import RULES, Change
from detlite.engine.run_files import flatten_config
from detlite.solver import build_optimizer, build_schedule, freeze_parameters, scale_to_batch

mutations, small_runs = (
    import_component(str(pathlib.Path(__file__).with_name(name)), "tests/soak/resume_changes.py")
    for name in ("mutations.py", "small_runs.py")
)
HALF = 2  # iterations, of four


@dataclass
class Verdicts:
    """What has come of the changes so far."""

    counts: dict = field(default_factory=dict)
    wrong: list = field(default_factory=list)
    rules: set = field(default_factory=set)
    unseen: set = field(default_factory=set)
    failed: set = field(default_factory=set)


class Steps(HookBase):
    """Writes down what each step is made with, and stops a run where it is told."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.options, self.samples = {}, {}

    def before_step(self, trainer):
        self.options[trainer.iter] = options_of(trainer.optimizer)

    def after_backward(self, trainer):
        self.samples[trainer.iter] = samples_of(trainer.batch)

    def after_step(self, trainer):
        if trainer.iter + 1 == self.stop_after:
            trainer.request_stop("signal")


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def options_of(optimizer):
    """The options of each group that steps depend on."""
    names = ("lr", "weight_decay", "momentum", "betas", "eps", "alpha", "nesterov", "dampening")
    return [
        {"parameters": list(g["param_names"])} | {n: g[n] for n in names if n in g}
        for g in optimizer.param_groups
    ]


def samples_of(batch):
    return [(s["position"], s["image_id"], float(s["image"].double().sum())) for s in batch]


class Soak:
    """Runs in a folder, each trained once to the half."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.run = self.folder / "run"
        self.log = Lines()
        logger = logging.getLogger("detlite")
        logger.setLevel(logging.INFO)
        logger.addHandler(self.log)
        small_runs.write_coco(self.folder / "data")
        os.environ["DETLITE_DATASETS"] = str(self.folder / "data")
        self.halves, self.unchanged = {}, {}
        self.verdicts = Verdicts()

    def config(self, name, *overrides):
        every = [*small_runs.SMALL, *small_runs.RUNS[name], f"output_dir={self.run}", *overrides]
        return load_config(small_runs.QUICKSTART, every)

    def train(self, config, *, resume=False, stop_after=None):
        """The trainer after its run, and what its steps were made with."""
        self.has_begun = False
        trainer = build_trainer(config, resume=resume)
        self.has_begun = True
        steps = Steps(stop_after)
        trainer.hooks.insert(0, steps)
        trainer.train()
        return trainer, steps

    def half(self, name):
        """A folder with the run after half of its iterations."""
        if name not in self.halves:
            shutil.rmtree(self.run, ignore_errors=True)
            self.train(self.config(name), stop_after=HALF)
            self.halves[name] = self.folder / name
            shutil.copytree(self.run, self.halves[name])
            trainer, _ = self.train(self.config(name), resume=True)
            self.unchanged[name] = trainer.model.state_dict()
        return self.halves[name]

    def change(self, name, key, value):
        """Resume with one key changed; returns what became of it."""
        half = self.half(name)
        override = f"{key}={json.dumps(value)}"
        before = self.config(name)
        try:
            after = self.config(name, override)
            after = scale_to_batch(after)
        except UserError:
            return "no config"
        changed = changes_between(before, after)
        if not changed:
            return "no change"
        run = pathlib.Path(after.output_dir)
        for each in (self.run, run):
            shutil.rmtree(each, ignore_errors=True)
        shutil.copytree(half, run)
        self.log.lines.clear()
        files = contents(run)
        try:
            outcome, problems = self.outcome(name, after, changed)
        except UserError as error:
            outcome, text = "refused", str(error)
            touched = [] if self.has_begun else differing(files, contents(run))
            problems = [f"{path} was touched" for path in touched]
            if "--resume" in text or any(rule_of(k).fate == "refused" for k in changed):
                problems += [f"{k} is not named: {text}" for k in unnamed(changed, text)]
            else:
                outcome = "an error of its own"
                self.verdicts.failed.add(f"{name} {override}: {text.splitlines()[0]}")
        except FloatingPointError:
            outcome, problems = "diverged", []
        except Exception:
            outcome, problems = "traceback", [traceback.format_exc()]
        self.verdicts.rules.update(rule_of(k) for k in changed)
        self.verdicts.counts[outcome] = self.verdicts.counts.get(outcome, 0) + 1
        self.verdicts.wrong += [f"{name} {override}: {problem}" for problem in problems]
        return outcome

    def outcome(self, name, config, changed):
        trainer, steps = self.train(config, resume=True)
        log = "\n".join(self.log.lines)
        problems = [f"{key} is not named in the log" for key in unnamed(changed, log)]
        fates = {rule_of(key).fate for key in changed}
        if "refused" in fates:
            problems.append("was not refused")
        moved = [
            tensor
            for tensor, value in trainer.model.state_dict().items()
            if not torch.equal(value, self.unchanged[name][tensor])
        ]
        if fates == {"without effect"}:
            problems += [f"{tensor} differs, which is an effect" for tensor in moved[:1]]
            return "without effect", problems
        if not moved:
            self.verdicts.unseen.update(changed)
        problems += options_problems(config, steps)
        problems += samples_problems(config, steps)
        if steps.options:
            run = pathlib.Path(config.output_dir)
            last = load_checkpoint(run / (run / "last_checkpoint").read_text())
            expected = copy.deepcopy(config)
            if expected.train.precision == "auto":  # the checkpoint says what was chosen
                chosen = parse_yaml(last["config"], "the checkpoint").values["train"]
                expected.train.precision = chosen["precision"]
            if last["config"] != expected.to_yaml():
                problems.append("the checkpoint does not hold the new config")
        return "applied", problems


def options_problems(config, steps):
    """Where rates and other options are not those of an uninterrupted schedule."""
    solver = config.solver
    config = copy.deepcopy(config)
    config.model["weights"] = ""
    model = build_model(config)
    freeze_parameters(model, solver.freeze)
    optimizer = build_optimizer(
        solver.optimizer,
        model,
        weight_decay_norm=solver.weight_decay_norm,
        weight_decay_bias=solver.weight_decay_bias,
        parameter_groups=solver.parameter_groups,
        layer_decay=solver.layer_decay,
    )
    schedule = build_schedule(solver.schedule, optimizer, solver.max_iter)
    is_off = any(b.name == "LRScheduler" and not b.get("enabled", True) for b in config.train.hooks)
    problems = []
    for iteration in range(solver.max_iter):
        expected = options_of(optimizer)
        if iteration in steps.options and not same(expected, steps.options[iteration]):
            found = steps.options[iteration]
            problems.append(f"iteration {iteration} is made with {found}, expected {expected}")
        optimizer.step()
        if not is_off:
            schedule.step()
    return problems[:1]


def same(expected, found):
    if isinstance(expected, list | tuple):
        return len(expected) == len(found) and all(map(same, expected, found))
    if isinstance(expected, dict):
        return expected.keys() == found.keys() and all(same(expected[k], found[k]) for k in found)
    if isinstance(expected, float):
        return abs(expected - found) <= 1e-9 * abs(expected) + 1e-15
    return expected == found


def samples_problems(config, steps):
    """Where the images are not those of a new run at the same iterations."""
    datasets = build_datasets(config.data.train, "data.train")
    loader = iter(build_train_loader(config, datasets))
    batches = [samples_of(next(loader)) for _ in range(max(steps.samples, default=-1) + 1)]
    return [
        f"iteration {iteration} sees {found}, expected {batches[iteration]}"
        for iteration, found in steps.samples.items()
        if found != batches[iteration]
    ][:1]


def changes_between(before, after):
    """Keys whose values differ, by a comparison of its own."""
    a, b = (flatten_config(config.to_dict()) for config in (before, after))
    none = object()
    return sorted(key for key in a.keys() | b.keys() if a.get(key, none) != b.get(key, none))


def rule_of(key):
    return Change(key, None, None).rule


def unnamed(changed, text):
    """Keys that a text names neither themselves nor by the block or the list that holds them."""

    def is_named(key):
        parts = key.split(".")
        prefixes = [".".join(parts[:i]) for i in range(2, len(parts) + 1)]
        names = {key, *(f"{prefix}.name" for prefix in prefixes), *prefixes}
        # A list of names that differs is named as a whole, before its first entry's number.
        return any(f"{name}:" in text for name in names)

    return [key for key in changed if not is_named(key)]


def contents(folder):
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name != ".lock"}


def differing(before, after):
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def soak(folder, count, seed, only="*", runs=None, report=print):
    """Make so many changes; returns the verdicts."""
    rng = random.Random(seed)
    work = Soak(folder)
    keys = [
        (name, *key)
        for name in runs or small_runs.RUNS
        for key in mutations.all_keys(work.config(name))
        if fnmatchcase(key[0], only)
    ]
    done, queue = 0, []
    for _ in range(50 * count):
        if done == count or not keys:
            break
        queue = queue or rng.sample(keys, len(keys))
        name, key, annotation, value = queue.pop()
        if key == "output_dir":
            new = str(work.folder / "moved")
        else:
            new = mutations.another(key, annotation, value, rng)
        outcome = work.change(name, key, new)
        if outcome not in ("no config", "no change"):
            done += 1
            report(f"{done:4d} {name:8s} {outcome:15s} {key}={json.dumps(new)[:60]}")
    return work.verdicts


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="changes to make")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of changes")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="keys to change")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        verdicts = soak(folder, arguments.count, arguments.seed, arguments.only)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(verdicts.counts.items())))
    for line in sorted(verdicts.failed):
        print(f"error of its own: {line}")
    print(f"applied, and the weights are the same: {', '.join(sorted(verdicts.unseen))}")
    print(f"rules met: {len(verdicts.rules)} of {len(RULES)}")
    for line in verdicts.wrong:
        print(f"WRONG {line}")
    print(f"{len(verdicts.wrong)} wrong")
    sys.exit(1 if verdicts.wrong else 0)


if __name__ == "__main__":
    main()
