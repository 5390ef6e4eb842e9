"""Each planted mistake is found, by the check that is for it."""

from pathlib import Path

import pytest

from detlite.config.loader import import_component
from detlite.registry import filled_registries
from detlite.testing.discovery import registered_by, snapshot
from detlite.testing.running import examine
from detlite.testing.subject import Surroundings

PLANTED = Path(__file__).parent / "planted.py"

MISTAKES = {
    "WrongChannels": "'res4' has 12 channels, output_shape() says 16",
    "FloorSizes": "ceil(side / stride)",
    "UnusedParameter": "spare.weight, spare.bias",
    "ChangesImages": "was changed in place",
    "PlainTensor": "the loaded one",
    "HardDtype": "dtype",
    "BatchStatistics": "the image alone",
    "OneDevice": "on another device it fails",
    "Undocumented": "the docstring says nothing of width",
    "Untyped": "width: no annotation",
    "Draws": "a second call",
    "CoarseFirst": "they must rise",
    "ChannelMajor": "changed most at (level, row, column)",
    "MeanLoss": "a mean?",
    "CountsIgnored": "anchors of class -1",
    "Overflows": "logits of about 100",
    "DividesByArea": "boxes without area",
    "OutOfRange": "its indices go from -1",
    "NoClamp": "clamp before exp()",
    "ForgetsBoxes": "the object is at",
    "OwnGenerator": "a second call gives another image",
    "Remembers": "where other epochs came before it",
    "ForgetsState": "a loaded hook remembers",
    "SavesAPath": "PosixPath",
    "ForgetsMomentum": "after a load",
}


@pytest.fixture(scope="module")
def reports():
    before = snapshot()
    import_component(str(PLANTED), "the test")
    planted = registered_by(before)
    yield {name: examine(registry, {"name": name}, Surroundings()) for registry, name in planted}
    for registry, name in planted:
        del filled_registries()[registry.kind]._components[name]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found_and_its_contract_told(reports, name):
    failed = reports[name].failed
    found = [outcome for outcome in failed if MISTAKES[name] in outcome.detail]
    assert found, f"{reports[name]}"
    assert all(".py:" in outcome.contract and '"' in outcome.contract for outcome in failed)


def test_every_planted_component_is_examined_and_one_without_a_mistake_passes(reports):
    assert {*reports} == {*MISTAKES, "Faultless"}
    assert not reports["Faultless"].failed, f"{reports['Faultless']}"
