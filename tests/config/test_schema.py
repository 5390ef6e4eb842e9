import copy
import pickle

import pytest

from detlite import ConfigError, load_config
from detlite.config.other_words import WORDS
from detlite.registry import Block


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("train", "precison", "fp32", "TrainSection has no 'precison'; did you mean 'precision'?"),
        ("solver", "max_iter", "many", "'max_iter' must be an integer >= 1, got 'many' (str)"),
        ("solver", "max_iter", 0, "'max_iter' must be an integer >= 1, got 0"),
        ("solver", "max_iter", 2**70, "got an integer beyond 64 bits"),
        ("solver", "learning_rate", 0.1, "learning_rate of other tools is solver.optimizer.lr"),
        ("train", "ema", 0.9, "must be a mapping"),
        ("test", "precision", "fp8", "'precision' must be one of"),
        ("data", "train", {"name": "Shapes"}, "must be a list of blocks"),
        ("data", "train", [Block(name="Shapes")], "dataset 'Shapes' needs 'num_images'"),
    ],
)
def test_assigning_a_wrong_field_or_value_raises(checked, section, name, value, message):
    config = checked("seed: 1\n")
    with pytest.raises(ConfigError) as error:
        setattr(getattr(config, section), name, value)
    assert message in str(error.value)
    assert config == checked("seed: 1\n")


def test_what_is_assigned_is_completed(checked, tmp_path):
    config = checked("train: {ema: {decay: 0.9}}\n")
    config.output_dir = tmp_path
    config.solver.max_iter = 3
    config.train.ema = None
    config.data.train = [{"name": "Shapes", "num_images": 3}]
    assert (config.output_dir, config.solver.max_iter) == (str(tmp_path), 3)
    assert config.train.ema.decay == 0
    assert config.data.train[0].max_objects == 6


def test_a_config_is_copied_and_pickled(checked):
    config = checked("seed: 5\n")
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
        other.solver.max_iter = 7
        assert config.solver.max_iter == 90000


def test_a_key_of_a_block_is_set_and_not_an_attribute_that_nobody_reads(checked):
    optimizer = checked("seed: 1\n").solver.optimizer
    optimizer.lr = 0.5
    assert optimizer["lr"] == 0.5
    with pytest.raises(AttributeError, match="no 'weight_decy'; did you mean 'weight_decay'"):
        optimizer.weight_decy = 1
    assert {"lr", "momentum"} <= set(dir(optimizer))
    assert pickle.loads(pickle.dumps(optimizer)) == copy.deepcopy(optimizer) == optimizer


@pytest.mark.parametrize(
    "text",
    [
        "train: {ema: null}",
        "solver: {clip_gradients: null, freeze: null, parameter_groups: null}",
        "train: {hooks: null}",
        "data: {train: null, test: null, train_transforms: null, batch_transforms: null}",
        "imports: null",
    ],
)
def test_null_switches_off(checked, text):
    assert checked(text + "\n") == checked("seed: 0\n")


def test_null_in_place_of_evaluators_is_none(checked):
    assert checked("test: {evaluators: null}\n").test.evaluators == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("solver: {learning_rate: 1}", "learning_rate of other tools is solver.optimizer.lr"),
        ("epochs: 3", "solver.max_iter, in iterations: epochs * images / data.batch_size"),
        ("train: {epochs: 3}", "epochs of other tools is solver.max_iter"),
        ("max_epochs: 3", "solver.max_iter"),
        ("batch: 3", "data.batch_size"),
        ("lr: 3", "solver.optimizer.lr"),
        ("imgsz: 640", "min_size and max_size of ResizeShortestEdge"),
        ("num_classes: 3", "classes are counted in data.train"),
        ("workers: 3", "data.num_workers"),
        ("SOLVER: {BASE_LR: 0.1, IMS_PER_BATCH: 2}", "SOLVER.BASE_LR of other tools is solver.opt"),
        ("SOLVER: {BASE_LR: 0.1, IMS_PER_BATCH: 2}", "IMS_PER_BATCH of other tools is data.batch"),
        ("solver: {optimizer: {name: SGD, learning_rate: 1}}", "solver.optimizer.lr"),
        ("data: {samples_per_gpu: 2}", "which counts the images of all GPUs together"),
    ],
)
def test_words_of_other_tools_get_a_hint(checked, text, told):
    with pytest.raises(ConfigError) as error:
        checked(text + "\n")
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_the_table_has_no_word_that_cannot_be_found():
    assert all(word == word.lower() and "." not in word for word in WORDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {head: {num_convs: 1000000000}}", "'num_convs' must be an integer >= 0 and <="),
        ("model: {neck: {out_channels: 1000000000}}", "'out_channels' must be"),
        ("solver: {layer_decay: .nan}", "got nan, which is not a finite number"),
        ("solver: {clip_gradients: {norm: .inf}}", "got inf, which is not a finite number"),
        ("solver: {optimizer: {name: SGD, lr: .inf}}", "got inf, which is not a finite number"),
        ("solver: {optimizer: {name: AdamW, betas: [0.9, .nan]}}", "got nan"),
        ("solver: {optimizer: {name: SGD, lr: 1.0e+300}}", "got 1e+300, which is not a finite"),
        ("data: {num_workers: 1000000}", "'num_workers' must be an integer >= 0 and <= 1000"),
        ("data: {batch_size: 1000000000}", "'batch_size' must be"),
        ("seed: -1", "'seed' must be an integer >= 0, got -1"),
        ("device: gpu", "'device' must be auto, cpu, cuda, or one GPU as cuda:0, got 'gpu'"),
        ("device: 0", "'device' must be auto, cpu, cuda, or one GPU as cuda:0, got 0"),
    ],
)
def test_absurd_values_are_refused_with_their_key(write, text, message):
    write("base.yaml", "MODEL\n")
    with pytest.raises(ConfigError) as error:
        load_config(write("x.yaml", f"_base_: base.yaml\n{text}\n"))
    assert message in str(error.value)
