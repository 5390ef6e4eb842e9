"""The sections of a config; a component's own keys stand in its constructor instead."""

import os
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from ..errors import ConfigError
from ..ranges import (
    BatchSize,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Processes,
)
from ..registry import Block, BlockOf
from .check import Checker
from .dump import dump_yaml
from .tree import Origin, Tree

ModelBlock = Annotated[Block, BlockOf("meta-arch")]
DatasetBlock = Annotated[Block, BlockOf("dataset")]
TransformBlock = Annotated[Block, BlockOf("transform")]
BatchTransformBlock = Annotated[Block, BlockOf("batch transform")]
SamplerBlock = Annotated[Block, BlockOf("sampler")]
OptimizerBlock = Annotated[Block, BlockOf("optimizer")]
ScheduleBlock = Annotated[Block, BlockOf("schedule")]
HookBlock = Annotated[Block, BlockOf("hook")]
EvaluatorBlock = Annotated[Block, BlockOf("evaluator")]
PrecisionKey = Literal["auto", "fp32", "bf16", "fp16"]
Device = Annotated[
    str,
    Meta(
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="auto, cpu, cuda, or one GPU as cuda:0",
    ),
]


class Section:
    """A part of a config; what is assigned to a field is checked as in a file."""

    null_is_off: ClassVar[bool] = False
    """Whether null in place of the section means its defaults, which then switch it off."""

    def __setattr__(self, name: str, value: Any) -> None:
        # A field that has no value yet is set by the constructor, with what was checked before.
        if name in self.__dict__ or name not in getattr(self, "__dataclass_fields__", ()):
            checker = Checker(Tree())
            value = os.fspath(value) if isinstance(value, os.PathLike) else value
            value = checker.field(type(self), name, value)
            if checker.problems:
                raise ConfigError(checker.problems[0])
        super().__setattr__(name, value)


@dataclass(kw_only=True)
class DataSection(Section):
    """What is trained and tested on.

    Attributes:
        train: Data sets, joined.
        test: Data sets, each evaluated by itself.
        train_transforms: Applied to training samples in order; boxes follow.
        test_transforms: Applied to test images; detections are scaled back.
        batch_transforms: Applied to the training samples that a process has of a batch together,
            such as MixUp; for data sets of image classes.
        batch_size: Images in a step, over all processes together.
        num_workers: Processes that load data beside each training process; 0 loads within it.
        sampler: Order of the training samples.
        aspect_ratio_grouping: Batches of only landscape or only portrait images pad less. Has no
            effect where sizes are not known before images are read, as in classification.
        keep_empty_images: Train on images without a box too.
        num_classes: If given, another number of classes in the data is an error.
        broken_image: What an unreadable training image does: "stop" the run, or "skip" to another
            image with a warning.
        read_retries: How often reading is tried again before that, where the error may pass.
        sample_timeout: Seconds after which a sample in a worker is taken to hang; 0 waits for ever.
        lost_sample: What is done with a sample whose worker died or hung: "stop" the run, "retry"
            it once, or "skip" it, after one retry, to another image with a warning.
        max_pixels: An image file that says it has more is refused before it is decoded, whatever
            its format. Decoding takes 4 to 9 bytes of memory a pixel.
        image_range: Of images with more than 8 bits a channel, the two values that become black
            and white, such as [0, 4095] for 12 bits; null: 0 and 65535.
    """

    train: list[DatasetBlock] = field(default_factory=list)
    test: list[DatasetBlock] = field(default_factory=list)
    train_transforms: list[TransformBlock] = field(default_factory=list)
    test_transforms: list[TransformBlock] = field(default_factory=list)
    batch_transforms: list[BatchTransformBlock] = field(default_factory=list)
    batch_size: BatchSize = 16
    num_workers: Processes = 2
    sampler: SamplerBlock = field(default_factory=lambda: Block(name="ShuffleSampler"))
    aspect_ratio_grouping: bool = True
    keep_empty_images: bool = True
    num_classes: PositiveInt | None = None
    broken_image: Literal["stop", "skip"] = "stop"
    read_retries: NonNegativeInt = 2
    sample_timeout: NonNegativeFloat = 300.0
    lost_sample: Literal["stop", "retry", "skip"] = "retry"
    max_pixels: PositiveInt = 64_000_000
    image_range: Annotated[list[float], Meta(min_length=2, max_length=2)] | None = None


@dataclass(kw_only=True)
class ClipGradients(Section):
    """Limits of the gradient; both at once are allowed.

    Attributes:
        norm: Greatest L2 norm of all gradients together.
        value: Greatest absolute value of each.
    """

    null_is_off: ClassVar[bool] = True

    norm: PositiveFloat | None = None
    value: PositiveFloat | None = None


@dataclass(kw_only=True)
class ParameterGroup(Section):
    """Parameters that learn at another rate, or decay otherwise, than the rest.

    Attributes:
        match: Patterns of names, such as ``backbone.*``; one is enough to match.
        lr_factor: What the learning rate is multiplied by.
        weight_decay: Instead of the optimizer's; null leaves it.
        weight_decay_factor: What the weight decay is multiplied by.
    """

    match: str | list[str]
    lr_factor: NonNegativeFloat = 1.0
    weight_decay: NonNegativeFloat | None = None
    weight_decay_factor: NonNegativeFloat = 1.0


@dataclass(kw_only=True)
class SolverSection(Section):
    """How the weights move.

    Attributes:
        optimizer: A class of torch.optim, or a registered one.
        schedule: The learning rate over the iterations.
        max_iter: Iterations of the run.
        reference_batch_size: The batch size that the rates, iterations and periods of the config
            are meant for; where ``data.batch_size`` is another, they are scaled to it.
        clip_gradients: Limits of the gradient.
        weight_decay_norm: Weight decay of normalization layers; null: as everything else.
        weight_decay_bias: Weight decay of biases; null: as everything else.
        parameter_groups: Learning rates and weight decays of parameters by their names.
        layer_decay: What the learning rate is multiplied by with every layer of the backbone
            towards the image; 1 for the same rate everywhere.
        freeze: Patterns of names of parameters that are not trained.
    """

    optimizer: OptimizerBlock = field(
        default_factory=lambda: Block(name="SGD", lr=0.01, momentum=0.9, weight_decay=0.0001)
    )
    schedule: ScheduleBlock = field(default_factory=lambda: Block(name="WarmupCosineLR"))
    max_iter: PositiveInt = 90000
    reference_batch_size: PositiveInt | None = None
    clip_gradients: ClipGradients
    weight_decay_norm: NonNegativeFloat | None = None
    weight_decay_bias: NonNegativeFloat | None = None
    parameter_groups: list[ParameterGroup] = field(default_factory=list)
    layer_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    freeze: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class EMASection(Section):
    """A moving average of the weights, which is what is evaluated and saved for inference.

    Attributes:
        decay: Share of the old average that an update keeps; 0 for no average.
        warmup: The decay rises to its value over about this many updates.
        period: Iterations from one update to the next.
        start: Iterations in which the average is a copy of the weights.
    """

    null_is_off: ClassVar[bool] = True

    decay: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    warmup: NonNegativeInt = 0
    period: PositiveInt = 1
    start: NonNegativeInt = 0


@dataclass(kw_only=True)
class TrainSection(Section):
    """How a run goes.

    Attributes:
        precision: Of the forward pass; bf16 and fp16 by autocast, fp16 with a gradient scaler.
            "auto" takes bf16 where the hardware computes it, else fp32; a resumed run keeps what
            it began with.
        channels_last: Keep feature maps in NHWC memory; "auto" where that is faster.
        accumulate: Parts that a process computes its share of a batch in, one after the other; the
            step is the same, with less memory.
        deterministic: Let torch use only algorithms that give the same bits every time.
        collective_timeout: Seconds after which a process gives up waiting for the others.
        ema: A moving average of the weights.
        checkpoint_period: Iterations between checkpoints.
        checkpoint_keep: How many of them stay, the newest; while one is written there is one more.
            The weights of the best and of the final model are files of their own beside them.
        log_period: Iterations between lines of the log.
        hooks: Further hooks; the block of a default hook changes its values, and
            ``enabled: false`` switches it off.
    """

    precision: PrecisionKey = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    accumulate: BatchSize = 1
    deterministic: bool = False
    collective_timeout: PositiveFloat = 600.0
    ema: EMASection
    checkpoint_period: PositiveInt = 5000
    checkpoint_keep: PositiveInt = 2
    log_period: PositiveInt = 20
    hooks: list[HookBlock] = field(default_factory=list)


@dataclass(kw_only=True)
class TestSection(Section):
    """How a model is tested.

    Attributes:
        eval_period: Iterations between evaluations; 0 evaluates at the end only.
        evaluators: What is computed on each test data set.
        precision: Of the forward pass; "auto" takes bf16 where the hardware computes it, else
            fp32.
        batch_size: Images at a time. Images that are padded to different sizes are run one size
            after the other, so that results do not depend on it (but with the model's
            ``independent_images: false``).
    """

    __test__ = False  # not a test, for pytest

    eval_period: NonNegativeInt = 0
    evaluators: list[EvaluatorBlock] = field(default_factory=lambda: [Block(name="COCOEvaluator")])
    precision: PrecisionKey = "auto"
    batch_size: BatchSize = 1


@dataclass(kw_only=True)
class Config(Section):
    """A complete, checked config; made by ``load_config``.

    Attributes:
        output_dir: Where a run writes its files.
        seed: Of every random choice.
        device: "auto" takes a GPU if there is one; "cuda:1" is the second GPU, for one process.
        imports: Modules, or files, that register components of the user.
        model: The meta-arch's block.
        data: What is trained and tested on.
        solver: How the weights move.
        train: How a run goes.
        test: How a model is tested.
    """

    output_dir: str = "output"
    seed: NonNegativeInt = 0
    device: Device = "auto"
    imports: list[str] = field(default_factory=list)
    model: ModelBlock
    data: DataSection
    solver: SolverSection
    train: TrainSection
    test: TestSection

    def to_dict(self) -> dict[str, Any]:
        """All values as plain mappings, lists and scalars."""
        values = _plain(self)
        assert isinstance(values, dict)
        return values

    def to_yaml(self, tree: Tree | None = None) -> str:
        """All values as YAML.

        Args:
            tree: If given, each line says in a comment where its value was written.
        """

        def origin(path: tuple[str, ...]) -> str:
            assert tree is not None
            return str(tree.origins.get(path) or Origin("default"))

        return dump_yaml(self.to_dict(), origin if tree is not None else None)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
