"""Checks of what a run is made of: hooks, evaluators, optimizers, schedules."""

import inspect
import io
import itertools
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoint import Checkpointer
from ..data.datasets import Shapes
from ..engine import HookBase, Trainer
from ..errors import CheckpointError, ConfigError
from ..evaluation import DatasetEvaluator
from ..solver import build_schedule
from ..structures import Instances
from .catalogue import check
from .report import Broken, NotApplicable
from .subject import Subject

STEPS = 20


class _Toy(nn.Module):
    """Three numbers that are drawn to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = _parameter()

    def forward(self, batch: Any, share: Any = None) -> dict[str, torch.Tensor]:
        loss = (self.weight**2).sum()
        return {"loss_cls": loss, "loss_box": 0.5 * loss}


class _Run:
    """A run of a few iterations for one hook, which is given what a real run gives."""

    def __init__(self, subject: Subject, folder: str, seed: int = 0) -> None:
        self.model = _Toy()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        identity = {"config": "", "class_names": ["a"]}
        self.checkpointer = Checkpointer(folder, keep=1, identity=identity)
        try:
            self.hook: HookBase = subject.build(
                weights_seed=seed,
                output_dir=Path(folder),
                config_yaml="",
                log_records=[],
                test_loaders=[],
                evaluate=lambda model: {},
                batch_size=1,
                schedule=schedule,
                checkpointer=self.checkpointer,
            )
        except ConfigError as error:
            if "needs the package" in str(error):
                raise NotApplicable(f"{error}") from None
            raise

    def train(self) -> None:
        """Go through all iterations."""
        batch = [{"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}]
        batches = itertools.repeat(batch)
        hooks = [self.hook]
        Trainer(self.model, self.optimizer, batches, max_iter=STEPS, hooks=hooks).train()


@check("hook", of=HookBase, line="What must survive a restart")
def what_a_hook_remembers_can_be_saved(subject: Subject) -> None:
    """It goes through a short training; ``state_dict()`` then survives a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        run, other = _Run(subject, folder), _Run(subject, folder, 1).hook
        run.train()
        state = run.hook.state_dict()
        try:
            run.checkpointer.check({"hook": state})
        except CheckpointError as error:
            raise Broken(f"{error}") from None
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        if repr(other.state_dict()) != repr(state):
            raise Broken(f"a loaded hook remembers {other.state_dict()}; {state} was saved")


@check("hook", of=HookBase, line="One concern of a run, called at the points of it.")
def the_methods_of_a_hook_are_the_contracts(subject: Subject) -> None:
    """Its methods take what the trainer gives them: the trainer, and nothing else."""
    points = ("before_train", "before_step", "after_backward", "after_step", "after_restore")
    for name in (*points, "after_train", "close"):
        method = getattr(subject.component, name)
        try:
            inspect.signature(method).bind(None, None)
        except TypeError as error:
            raise Broken(f"{name}(trainer): {error}") from None
    public = {name for name in vars(subject.component) if name.startswith(("before_", "after_"))}
    unknown = public - {*dir(HookBase)}
    if unknown:
        raise Broken(f"nothing calls {', '.join(sorted(unknown))}; points are {', '.join(points)}")


def _evaluation(subject: Subject) -> tuple[Any, list[tuple[Any, Any]]]:
    """An evaluator and images with what a model might say of them."""
    if "LabelledImages" in str(inspect.signature(subject.component)):
        return _evaluation_of_images(subject)
    dataset = Shapes(num_images=4)
    pairs = []
    for i in range(len(dataset)):
        sample = dataset[i]
        found = Instances(
            (sample["height"], sample["width"]),
            pred_boxes=sample["boxes"] + 2,
            scores=torch.linspace(0.9, 0.3, len(sample["boxes"])),
            pred_classes=sample["classes"],
        )
        inputs = {key: sample[key] for key in ("image_id", "file_name", "height", "width")}
        pairs.append((inputs, {"instances": found}))
    evaluator = subject.build(dataset=dataset, output_dir=None)
    return evaluator, pairs


def _evaluation_of_images(subject: Subject) -> tuple[Any, list[tuple[Any, Any]]]:
    """The same for an evaluator of classes of images."""
    dataset = SimpleNamespace(
        name="images",
        class_names=("a", "b", "c"),
        image_ids=[1, 2, 3, 4],
        classes=np.array([0, 1, 2, 0]),
    )
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    pairs = [
        ({"image_id": i + 1, "file_name": f"{i}.png"}, {"scores": scores[i]}) for i in range(4)
    ]
    return subject.build(dataset=dataset, output_dir=None), pairs


def _results(
    evaluator: Any, pairs: list[tuple[Any, Any]], batch: int
) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for start in range(0, len(pairs), batch):
        inputs, outputs = zip(*pairs[start : start + batch], strict=True)
        evaluator.process(list(inputs), list(outputs))
    results: dict[str, dict[str, float]] = evaluator.evaluate()
    return results


@check("evaluator", of=DatasetEvaluator, line="The numbers, as ``{task: {metric: value}}``")
def results_are_numbers_by_task_and_metric(subject: Subject) -> None:
    """Results are ``{task: {metric: number}}``, whatever the order and the size of batches."""
    evaluator, pairs = _evaluation(subject)
    results = _results(evaluator, pairs, 2)
    for task, metrics in results.items():
        wrong = [name for name, value in metrics.items() if not isinstance(value, int | float)]
        if wrong:
            raise Broken(f"{task}: {', '.join(wrong)} are no numbers")
    for order, batch in ((pairs[::-1], 2), (pairs, 1), (pairs, 4)):
        _check_equal(_results(evaluator, order, batch), results, "in another order or batch size")


@check("evaluator", of=DatasetEvaluator, line="Forget everything; called before the first batch.")
def reset_forgets_everything(subject: Subject) -> None:
    """After ``reset`` an evaluator says what a new one says."""
    evaluator, pairs = _evaluation(subject)
    first = _results(evaluator, pairs, 2)
    _results(evaluator, pairs[:2], 1)
    _check_equal(_results(evaluator, pairs, 2), first, "after other batches and reset()")


def _check_equal(found: Any, expected: Any, when: str) -> None:
    for task, metrics in expected.items():
        for name, value in metrics.items():
            other = found.get(task, {}).get(name, math.inf)
            if not (other == value or (math.isnan(other) and math.isnan(value))):
                raise Broken(f"{task}/{name} is {value}, and {other} {when}")


def _parameter() -> nn.Parameter:
    return nn.Parameter(torch.ones(3))


def _schedule(subject: Subject) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.SGD([_parameter()], lr=0.1)
    return optimizer, build_schedule(subject.block, optimizer, STEPS)


@check("schedule")
def a_rate_is_a_function_of_the_iteration(subject: Subject) -> None:
    """A schedule that was saved and loaded goes on with the same rates, all of them finite."""
    optimizer, schedule = _schedule(subject)
    rates, state = [], None
    for step in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        if step == STEPS // 2:
            state = schedule.state_dict(), optimizer.state_dict()
        optimizer.step()
        schedule.step()
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise Broken(f"rates are {rates}")
    other_optimizer, other = _schedule(subject)
    assert state is not None
    other.load_state_dict(state[0])
    other_optimizer.load_state_dict(state[1])
    for step in range(STEPS // 2, STEPS):
        found = other_optimizer.param_groups[0]["lr"]
        if not math.isclose(found, rates[step], rel_tol=1e-9, abs_tol=1e-15):
            raise Broken(
                f"at iteration {step} a loaded schedule has {found}, the other {rates[step]}"
            )
        other_optimizer.step()
        other.step()


@check("optimizer")
def an_optimizer_goes_on_where_it_was(subject: Subject) -> None:
    """An optimizer that was saved and loaded makes the same steps, finite ones."""

    def parameters() -> list[nn.Parameter]:
        # Some optimizers treat matrices and convolutions in another way.
        generator = torch.Generator().manual_seed(0)
        shapes = ((3,), (4, 6), (4, 3, 3, 3))
        return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]

    def step(group: list[nn.Parameter], optimizer: torch.optim.Optimizer, factor: float) -> None:
        for parameter in group:
            parameter.grad = factor * parameter.detach() + 0.1
        optimizer.step()

    first, second = parameters(), parameters()
    optimizer = subject.build(params=first)
    for factor in (1.0, 0.5, 2.0):
        step(first, optimizer, factor)
    other = subject.build(params=second)
    # Through a file, as of a checkpoint: loading alone would share the tensors.
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for mine, theirs in zip(first, second, strict=True):
            theirs.copy_(mine)
    for factor in (1.0, 3.0):
        step(first, optimizer, factor)
        step(second, other, factor)
    for mine, theirs in zip(first, second, strict=True):
        if not torch.isfinite(mine).all() or not torch.allclose(mine, theirs):
            shape = tuple(mine.shape)
            raise Broken(f"weights {shape} are {mine.tolist()}, after a load {theirs.tolist()}")
