"""detlite's own components pass its checks, whose quotes of contracts are true."""

import subprocess
import sys

import pytest

from detlite.errors import ConfigError
from detlite.modeling.losses import GIoULoss
from detlite.registry import filled_registries
from detlite.testing import ConformanceError, check_component
from detlite.testing.__main__ import main, parser
from detlite.testing.catalogue import CHECKS
from detlite.utils.cli import run_cli

SMALL = {
    "ResNet": {"depth": 18, "norm": "GN", "freeze_at": 0},
    "FPN": {"out_channels": 16},
    "PAFPN": {"out_channels": 16},
    "BiFPN": {"out_channels": 16},
    "RetinaNetHead": {"num_convs": 1, "norm": "GN"},
    "FCOSHead": {"num_convs": 1},
    "WarmupMultiStepLR": {"milestones": [5, 10]},
    "Shapes": {"num_images": 4},
    **{
        name: {"transforms": [{"name": "RandomHorizontalFlip"}]}
        for name in ("Compose", "RandomApply", "RandomOrder")
    },
}
# What has no defaults to be built with: paths of data, lists that a batch transform wants.
NEEDS_DATA = {"CocoDetection", "VocDetection", "ImageFolder", "ImageNet", "RandomChoice"}
SLOW = {
    "TimmBackbone",
    "TorchvisionBackbone",
    "ResNet",
    "IoULoss",
    "DIoULoss",
    "CIoULoss",
    "L1Loss",
}


def own_components():
    for kind, registry in filled_registries().items():
        for name in registry:
            component = registry.get(name)
            if name not in NEEDS_DATA and component.__module__.startswith("detlite."):
                yield pytest.param(
                    kind,
                    name,
                    marks=[pytest.mark.slow] if name in SLOW else [],
                    id=f"{kind}-{name}",
                )


@pytest.mark.filterwarnings("ignore:.*is currently passing through inputs:UserWarning")
@pytest.mark.parametrize(("kind", "name"), list(own_components()))
def test_a_component_of_detlite_conforms(kind, name):
    check_component(kind, name, SMALL.get(name))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("backbone", "ResNet"), ("neck", "FPN")])
def test_a_component_of_detlite_conforms_compiled(kind, name):
    report = check_component(kind, name, SMALL[name], compile=True)
    assert "ok      ``torch.compile`` gives the same" in f"{report}"


def test_every_check_quotes_a_line_that_its_contract_has():
    assert len(CHECKS) > 60
    for check in CHECKS:
        assert ".py:" in check.contract()


def test_an_unknown_kind_and_a_missing_key_are_told():
    with pytest.raises(ConfigError, match="no kind of component 'backbon'; known: meta-arch"):
        check_component("backbon", "ResNet")
    with pytest.raises(ConfigError, match="needs 'num_images': an integer >= 1"):
        check_component("dataset", "Shapes")


def test_a_failed_check_raises_the_report(monkeypatch):
    monkeypatch.setattr(GIoULoss, "__doc__", "A loss.")
    with pytest.raises(ConformanceError, match="the docstring says nothing of weight"):
        check_component("loss", "GIoULoss")


MODULE = '''
from detlite import LOSS_REGISTRY, BoxLoss


@LOSS_REGISTRY.register
class CommandLineLoss(BoxLoss):
    """Squared distance.

    Args:
        weight: Factor.
    """

    compares = "deltas"

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, predicted, target):
        return self.weight * ((predicted - target) ** 2).{reduction}
'''


@pytest.mark.parametrize(
    ("reduction", "options", "code", "told"),
    [
        ("sum(dim=1)", ["--set", "weight=2"], 0, "loss 'CommandLineLoss': 12 ok, 0 FAILED"),
        ("mean()", ["--block", "{name: CommandLineLoss, weight: 1}"], 1, "expected (20,)"),
        ("sum()", [], 2, "needs 'weight': a number"),
        ("sum()", ["-k", "Other"], 2, "registers no component with 'Other' in its name"),
    ],
)
def test_the_command_tells_and_exits_with_its_code(
    tmp_path, monkeypatch, capsys, reduction, options, code, told
):
    (tmp_path / "loss.py").write_text(MODULE.replace("{reduction}", reduction))
    monkeypatch.chdir(tmp_path)
    command = ["detlite.testing", "loss.py", "--no-compile", *options]
    monkeypatch.setattr(sys, "argv", command)
    try:
        run_cli(main, parser())
        exit_code = 0
    except SystemExit as ended:
        exit_code = ended.code
    finally:
        filled_registries()["loss"]._components.pop("CommandLineLoss", None)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert exit_code == code, text
    assert told in text
    if code == 1:
        assert "detlite/modeling/interfaces/losses.py:" in text


@pytest.mark.slow
def test_the_command_runs_as_a_module(tmp_path):
    (tmp_path / "loss.py").write_text(MODULE.replace("{reduction}", "mean()"))
    command = [sys.executable, "-m", "detlite.testing", "loss.py", "--set", "weight=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
