"""A wheel needs no checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OUTSIDE = """
import pathlib
import detlite
assert "checkout" in detlite.__file__, detlite.__file__
config = detlite.load_config("detlite://bccd/retinanet_r18_fpn_bccd.yaml")
names = ["cell", "platelet"]
assert detlite.build_model(config, names).num_classes == 2
"""


@pytest.mark.slow
def test_a_wheel_works_outside_the_checkout_with_its_configs(tmp_path):
    environment = {**os.environ, "DETLITE_NATIVE": "off"}
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    folder = tmp_path / "no_checkout"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    shipped = {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml")}
    carried = (folder / "detlite").rglob("*.yaml")
    assert {path.relative_to(folder / "detlite") for path in carried} == shipped
    environment |= {"PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", OUTSIDE], check=True, env=environment, cwd=tmp_path)
