"""What a run pays for losing nothing: checkpoints, hooks and logs, and going on."""

import itertools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detlite import Config, HookBase, Instances, Trainer, build_model, build_trainer, load_config
from detlite.checkpoint import Checkpointer
from detlite.data import TrainingData, build_datasets, build_train_loader
from detlite.engine import ModelEMA

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = str(CONFIGS / "quickstart.yaml")
R50 = str(CONFIGS / "retinanet" / "retinanet_r50_fpn_1x_coco.yaml")
STRETCH = 100  # iterations between checkpoints
WARMUP = 20
_IN_STEPS = ("before_step", "after_backward", "after_step")
_ONCE = ("before_train", "after_train", "close")
# They are measured by themselves, or do what the user asks for.
_NOT_OVERHEAD = ("Evaluation", "PredictionPictures", "PeriodicCheckpointer")


def run(repeat: int) -> list[dict[str, object]]:
    """Shares of the training time, and what a resumed run reads."""
    rows = checkpoint_stretches(2 * repeat)
    rows += checkpoint_costs(repeat)
    rows += hook_costs(repeat)
    rows += resume_costs(repeat)
    return rows


# ---- checkpoints ------------------------------------------------------------------------------


class Stretches(HookBase):
    """Times stretches of iterations; of each pair one begins with a checkpoint.

    Args:
        length: Iterations of each.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.rng = random.Random(0)
        self.seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        self._order: list[bool] = []
        self._begun: tuple[bool, float, float] | None = None

    def after_step(self, trainer: Trainer) -> None:
        """End a stretch, begin the next one."""
        done = trainer.iter + 1 - WARMUP
        if done < 0 or done % self.length:
            return
        wall, cpu = time.perf_counter(), time.process_time()
        if self._begun is not None:
            saves, begun_wall, begun_cpu = self._begun
            self.seconds[saves].append((wall - begun_wall, cpu - begun_cpu))
        if not self._order:
            self._order = self.rng.sample([True, False], 2)
        saves = self._order.pop()
        self._begun = (saves, wall, cpu)
        if saves:
            trainer.request_checkpoint()


def checkpoint_stretches(pairs: int) -> list[dict[str, object]]:
    """The quickstart with and without checkpoints, in turn within one run."""
    stretches = Stretches(STRETCH)
    with tempfile.TemporaryDirectory() as folder:
        max_iter = WARMUP + 2 * pairs * STRETCH + 1
        trainer = build_trainer(quickstart(folder, f"solver.max_iter={max_iter}"))
        trainer.hooks.insert(0, stretches)
        trainer.train()
        if trainer.stop_reason == "signal":  # which a training takes for a pause
            raise KeyboardInterrupt
    both = list(zip(stretches.seconds[True], stretches.seconds[False], strict=True))
    rows = []
    for i, kind in enumerate(("time", "CPU time")):
        shares = [with_one[i] / without[i] - 1 for with_one, without in both]
        spread = statistics.quantiles(shares, n=4) if len(shares) > 1 else [shares[0]] * 3
        rows.append(
            row(
                f"a checkpoint every {STRETCH} iterations, quickstart: more {kind}",
                f"{statistics.median(shares):.2%} (quartiles {spread[0]:.2%}, {spread[2]:.2%}; "
                f"{pairs} pairs of {statistics.median(b[i] for _, b in both):.1f} s)",
                "< 1 %",
            )
        )
    return rows


def checkpoint_costs(repeat: int) -> list[dict[str, object]]:
    """What a checkpoint takes: the seconds that training stops, and those of its thread's CPU."""
    rows = []
    for name, trainer_of in (("quickstart", quickstart_trainer), ("R50-FPN", r50_trainer)):
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(folder)
            step = statistics.median(step_seconds(trainer, repeat))
            state = trainer.state_dict()
            checkpointer = Checkpointer(folder, keep=1, identity={})
            checkpointer.save_periodic(0, state)  # makes the memory of the copy
            checkpointer.wait()
            blocked, cpu = [], []
            for i in range(1, repeat + 1):
                start = time.perf_counter()
                checkpointer.save_periodic(2 * i, state)
                blocked.append(time.perf_counter() - start)
                checkpointer.wait()
                start = time.thread_time()
                checkpointer.save_periodic(2 * i + 1, state, background=False)
                cpu.append(time.thread_time() - start)
            size = (Path(folder) / f"model_{2 * repeat + 1:07d}.pth").stat().st_size
        stops, works = statistics.median(blocked), statistics.median(cpu)
        share = (stops + works) / (STRETCH * step)
        rows.append(
            row(
                f"a checkpoint of {size / 1e6:.0f} MB ({name}, {step:.2f} s a step)",
                f"stops training for {stops:.3f} s, its thread uses {works:.2f} s of a core: "
                f"{share:.2%} of {STRETCH} steps",
                "< 1 %",
            )
        )
    return rows


def step_seconds(trainer: Trainer, number: int) -> list[float]:
    """Seconds of some training steps."""
    trainer.max_iter = number + 2
    times: list[float] = []

    class Clock(HookBase):
        def before_step(self, trainer: Trainer) -> None:
            times.append(time.perf_counter())

    trainer.hooks = [Clock()]
    trainer.train()
    return [b - a for a, b in itertools.pairwise(times[1:])]


# ---- hooks ------------------------------------------------------------------------------------


class ComputeNorm(HookBase):
    """The gradient norm, which clipping needs in any case; first, so that it is no hook's cost."""

    def after_backward(self, trainer: Trainer) -> None:
        """Compute it."""
        if trainer.clip_gradients.norm is not None:
            trainer.gradient_norm()


def hook_costs(repeat: int) -> list[dict[str, object]]:
    """The seconds that each hook of the quickstart takes, as a share of the training time."""
    iterations = STRETCH * max(repeat // 2, 1)
    seconds: dict[str, float] = {}
    once: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(quickstart(folder, f"solver.max_iter={iterations}"))
        for hook in trainer.hooks:
            if type(hook).__name__ not in _NOT_OVERHEAD:
                for points, into in ((_IN_STEPS, seconds), (_ONCE, once)):
                    for point in points:
                        measured = timed(getattr(hook, point), type(hook).__name__, into)
                        setattr(hook, point, measured)
        trainer.hooks.insert(0, ComputeNorm())
        start = time.perf_counter()
        trainer.train()
        total = time.perf_counter() - start - sum(once.values())
    rows = [
        row(
            f"all hooks and logs, quickstart, {iterations} iterations in {total:.1f} s",
            f"{sum(seconds.values()) / total:.2%}, and {sum(once.values()):.2f} s once a run",
            "< 1 %",
        )
    ]
    for name, value in sorted(seconds.items(), key=lambda pair: -pair[1]):
        text = f"{value / total:.3%} ({value / iterations * 1e6:.0f} microseconds an iteration"
        rows.append(row(f"- {name}", f"{text}, {once[name]:.3f} s once)"))
    return rows


def timed(
    call: Callable[[Trainer], None], name: str, seconds: dict[str, float]
) -> Callable[[Trainer], None]:
    """A hook's method that adds up what it takes."""

    def measured(trainer: Trainer) -> None:
        start = time.perf_counter()
        call(trainer)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return measured


# ---- going on ---------------------------------------------------------------------------------


def resume_costs(repeat: int) -> list[dict[str, object]]:
    """Images read, and seconds passed, until a run that goes on has its first batch."""
    rows = []
    config = quickstart("unused")
    datasets = build_datasets(config.data.train, "data.train")
    reads = multiprocessing.Value("i", 0)
    read = TrainingData.__getitem__

    def counted(data: TrainingData, sample: Any) -> Any:
        with reads.get_lock():
            reads.value += 1
        return read(data, sample)

    TrainingData.__getitem__ = counted  # type: ignore[method-assign]
    try:
        for workers in (0, 1):
            config.data.num_workers = workers
            for start in (0, 1000, 80_000):
                times = []
                for _ in range(repeat):
                    reads.value = 0
                    loader = build_train_loader(config, datasets, start=start)
                    begun = time.perf_counter()
                    next(iter(loader))
                    times.append(time.perf_counter() - begun)
                    loader.close()
                text = f"{reads.value} images read, {statistics.median(times):.3f} s"
                title = f"first batch at iteration {start:,}, {workers} workers"
                ahead = config.data.batch_size * (2 * workers + 2 if workers else 1)
                rows.append(row(title, text, f"at most {ahead} images"))
    finally:
        TrainingData.__getitem__ = read  # type: ignore[method-assign]
    return rows


# ---- what is measured -------------------------------------------------------------------------


def quickstart(folder: str, *overrides: str) -> Config:
    """The quickstart without tests, which are not what is measured."""
    fixed = [
        f"output_dir={folder}",
        "data.test=[]",
        "train.hooks=[]",
        "train.checkpoint_period=1000000",
    ]
    return load_config(QUICKSTART, [*fixed, *overrides])


def quickstart_trainer(folder: str) -> Trainer:
    """Of the quickstart."""
    return build_trainer(quickstart(folder))


def r50_trainer(folder: str) -> Trainer:
    """R50-FPN with 80 classes, momentum and averaged weights, on two images of 448 x 640."""
    empty = ["model.weights=''", "data.train=[]", "data.test=[]", f"output_dir={folder}"]
    config = load_config(R50, empty)
    model = build_model(config, [str(i) for i in range(80)])
    boxes = torch.tensor([[20.0, 20, 200, 220], [100, 50, 400, 300]])
    batch = [
        {
            "image": torch.randint(256, (3, 448, 640), dtype=torch.uint8),
            "instances": Instances((448, 640), gt_boxes=boxes, gt_classes=torch.tensor([3, 7])),
        }
        for _ in range(2)
    ]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9)
    return Trainer(
        model,
        optimizer,
        [batch] * 1000,
        max_iter=1,
        ema=ModelEMA(model, decay=0.999),
    )


def row(work: str, measured: str, target: str = "") -> dict[str, object]:
    """One line of the table."""
    return {"work": work, "measured": measured, "target": target}
