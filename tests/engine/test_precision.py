"""``precision: auto``: bf16 where the hardware computes it, and a run that keeps its precision."""

import logging
import pathlib

import pytest
import torch
import yaml

from detlite import ConfigError, Predictor, build_trainer, evaluate_model, load_config
from detlite.checkpoint import load_checkpoint
from detlite.engine.evaluate import build_test_loaders
from detlite.engine.precision import (
    choose_precision,
    computes_bf16,
    memory_format,
    settle_precision,
)

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs/quickstart.yaml"
CPU = torch.device("cpu")
AUTO = ("train.precision=auto", "test.precision=auto", "train.hooks=[]", "solver.max_iter=2")


@pytest.fixture
def hardware(monkeypatch):
    """Make torch say what a processor has: sets of instructions, and whether oneDNN uses bf16."""

    def pretend(*sets, onednn=True):
        has = {"avx512_bf16": "avx512_bf16" in sets, "amx_tile": "amx" in sets}
        for name, value in has.items():
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda value=value: value)
        # A first access, which makes the operator.
        assert torch.ops.mkldnn._is_mkldnn_bf16_supported() in (True, False)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)

    return pretend


@pytest.mark.parametrize(
    ("sets", "onednn", "expected"),
    [
        ((), False, "fp32"),
        ((), True, "fp32"),  # AVX-512 without BF16: oneDNN emulates it and says yes
        (("avx512_bf16",), True, "bf16"),
        (("amx", "avx512_bf16"), True, "bf16"),
        (("avx512_bf16",), False, "fp32"),
    ],
)
def test_auto_is_bf16_only_where_the_cpu_computes_it(hardware, caplog, sets, onednn, expected):
    hardware(*sets, onednn=onednn)
    caplog.set_level(logging.INFO, "detlite")
    asked = {"train.precision": "auto", "test.precision": "auto"}
    assert choose_precision(asked, CPU) == dict.fromkeys(asked, expected)
    (line,) = caplog.messages
    assert line.startswith(f"train.precision and test.precision: {expected} (auto), as the CPU ")
    assert caplog.records[0].levelno == logging.INFO


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)]
)
def test_auto_on_a_gpu_asks_for_its_compute_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    has, reason = computes_bf16(torch.device("cuda"))
    assert has is expected
    assert f"compute capability {capability[0]}.{capability[1]}" in reason


def test_an_explicit_bf16_without_hardware_is_kept_with_a_warning_that_says_what_to_set(
    hardware, caplog
):
    hardware()
    asked = {"train.precision": "bf16", "test.precision": "fp32"}
    assert choose_precision(asked, CPU) == asked
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for fact in ("train.precision: bf16", "no bf16 arithmetic", "set it to auto or fp32"):
        assert fact in record.getMessage()
    caplog.clear()
    hardware("avx512_bf16")
    assert choose_precision(asked, CPU) == asked
    assert not caplog.records


def test_auto_is_never_fp16_and_fp16_is_taken_as_it_is(hardware):
    hardware()
    assert choose_precision({"a": "fp16", "b": "auto"}, CPU) == {"a": "fp16", "b": "fp32"}


@pytest.mark.parametrize(
    ("sets", "precision", "auto"),
    [((), "fp32", False), ((), "bf16", False), (("amx",), "bf16", True), (("amx",), "fp32", False)],
)
def test_channels_last_is_automatic_where_half_precision_is_computed(
    hardware, sets, precision, auto
):
    hardware(*sets)
    last, kept = torch.channels_last, torch.preserve_format
    assert memory_format("auto", precision, CPU) is (last if auto else kept)
    assert memory_format(True, precision, CPU) is last
    assert memory_format(False, precision, CPU) is kept
    assert memory_format("auto", "fp16", torch.device("cuda")) is last


@pytest.mark.parametrize("value", ["maybe", "1"])
def test_channels_last_takes_true_false_and_auto(value):
    with pytest.raises(ConfigError, match="must be true or false or auto"):
        load_config(QUICKSTART, [f"train.channels_last={value}"])


def test_a_run_says_its_precisions_once_and_its_files_repeat_it(
    hardware, tiny_config, tmp_path, caplog
):
    hardware()
    caplog.set_level(logging.INFO, "detlite")
    build_trainer(tiny_config(*AUTO, "test.eval_period=1")).train()
    assert caplog.text.count(" train.precision and test.precision: fp32 (auto)") == 1
    assert [line for line in caplog.messages if "bf16" in line] == [
        line for line in caplog.messages if line.startswith("train.precision and test.precision")
    ]
    checkpoint = load_checkpoint(tmp_path / "run/model_final.pth")
    for text in (checkpoint["config"], (tmp_path / "run/config.yaml").read_text()):
        values = yaml.safe_load(text)
        assert values["train"]["precision"] == "fp32"
        assert values["test"]["precision"] == "auto"


def test_a_resumed_run_keeps_its_precision_on_another_machine(
    hardware, tiny_config, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "detlite")
    hardware("avx512_bf16")
    build_trainer(tiny_config(*AUTO, "solver.max_iter=1", "data.test=[]")).train()
    hardware()
    resumed = tiny_config(*AUTO, "data.test=[]")
    trainer = build_trainer(resumed, resume=True)
    assert (trainer.start_iter, trainer.precision) == (1, "bf16")
    assert caplog.text.count("train.precision: bf16, with which the run began") == 1
    values = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert values["train"]["precision"] == "bf16"
    assert resumed.train.precision == "auto"
    explicit = tiny_config(*AUTO, "data.test=[]", "train.precision=fp32")
    assert build_trainer(explicit, resume=True).precision == "fp32"


def test_a_run_in_fp32_goes_on_in_fp16(tiny_config, train):
    train("solver.max_iter=1", "train.hooks=[]", "data.test=[]")
    config = tiny_config("train.precision=fp16", "train.hooks=[]", "data.test=[]")
    assert build_trainer(config, resume=True).precision == "fp16"


@pytest.mark.parametrize("checkpoint", [{}, {"config": ""}, {"config": "train: {ema: {}}"}])
def test_a_checkpoint_that_does_not_say_its_precision_is_resumed(hardware, tiny_config, checkpoint):
    hardware("amx")
    assert settle_precision(tiny_config(*AUTO), CPU, checkpoint)[1:] == ("bf16", "bf16")


def test_prediction_and_evaluation_choose_their_precision_by_their_own_machine(
    hardware, tiny_config, tmp_path, caplog
):
    hardware("avx512_bf16")
    config = tiny_config(*AUTO, "solver.max_iter=1")
    trainer = build_trainer(config)
    assert trainer.precision == "bf16"
    trainer.train()
    hardware()
    caplog.set_level(logging.INFO, "detlite")
    caplog.clear()
    predictor = Predictor(tmp_path / "run/model_final.pth", device="cpu")
    assert predictor.precision == "fp32"
    assert caplog.text.count("test.precision: fp32 (auto), as the CPU has no bf16") == 1
    caplog.clear()
    evaluate_model(config, predictor.model, build_test_loaders(config))
    assert caplog.text.count("test.precision: fp32 (auto), as the CPU has no bf16") == 1
