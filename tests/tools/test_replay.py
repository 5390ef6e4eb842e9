"""tools/replay.py on the bundle of a run that has stopped."""

import os
import pathlib
import subprocess
import sys

import pytest

from detlite import build_trainer, load_config
from detlite.config.loader import import_component
from detlite.engine.replay import read_bundle, write_bundle

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = ROOT / "configs/quickstart.yaml"
SABOTEURS = ROOT / "tests/engine/saboteurs.py"
TINY = [
    f"imports=[{SABOTEURS}]",
    "data.train=[{name: Shapes, num_images: 8, image_size: [64, 64]}]",
    "data.test=[]",
    "data.num_workers=0",
    "data.batch_size=2",
    "model.backbone={name: Slim}",
    "model.neck.out_channels=16",
    "model.head.num_convs=1",
    "train.hooks=[]",
    "train.precision=fp32",
    "solver.max_iter=4",
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """What a run said that was stopped by a weight, and its bundle."""
    saboteurs = import_component(str(SABOTEURS), "the tests")
    folder = tmp_path_factory.mktemp("run")
    trainer = build_trainer(load_config(QUICKSTART, [*TINY, f"output_dir={folder}"]))
    poison = saboteurs.poison_weight("head.cls_subnet.0.weight", float("inf"))
    trainer.hooks.insert(0, saboteurs.BeforeStep(poison, 1))
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    return str(caught.value), folder / "non_finite/iter_0000001_rank0"


def test_the_command_that_a_run_tells_says_where_it_came_from(stopped, run_tool):
    message, folder = stopped
    command = message.partition("`python tools/replay.py ")[2].partition("`")[0].split()
    assert command == [str(folder), "--trust-imports"]
    code, out, err = run_tool("replay", *command)
    assert code == 0, err
    assert "in the weight head.cls_subnet.0.weight: 1 infinite of 2304" in out
    assert "input of head.cls_subnet.0 (ConvNorm): from" in out
    assert out.splitlines()[-1] == "reproduced"
    rows = [line.split() for line in out.splitlines() if line.startswith("0 ")]
    assert [(row[1], row[-1]) for row in rows] == [
        ("total_loss", "yes"), ("loss_cls", "yes"), ("loss_box", "yes"), ("num_positives", "yes")
    ]  # fmt: skip


def test_a_step_that_comes_out_otherwise_has_an_exit_code_of_its_own(stopped, run_tool, tmp_path):
    bundle = read_bundle(stopped[1])
    bundle.weights["head.cls_subnet.0.weight"].nan_to_num_(posinf=0.0)
    folder = write_bundle(bundle, tmp_path)
    code, out, _ = run_tool("replay", folder, "--trust-imports", "--device", "cpu")
    assert code == 1
    assert "nowhere: everything in the repeated step is finite" in out
    assert out.splitlines()[-1] == "NOT reproduced"


def test_mistakes_are_told(stopped, run_tool, tmp_path):
    code, out, err = run_tool("replay", stopped[1])
    assert (code, out) == (2, "")
    assert "pass --trust-imports" in err
    code, _, err = run_tool("replay", tmp_path)
    assert code == 2
    assert "there is no checkpoint" in err
    file = tmp_path / "bundle.pth"
    file.write_bytes((stopped[1] / "bundle.pth").read_bytes()[:-2000])
    code, _, err = run_tool("replay", tmp_path)
    assert code == 2
    assert str(file) in err


@pytest.mark.slow
def test_of_several_processes_the_one_with_the_bad_image_is_named(tmp_path, run_tool):
    folder = tmp_path / "run"
    poison = "data.train_transforms=[{name: PoisonPixel, samples: [1], rank: 1}]"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [
        "--nproc-per-node=2",
        "--max-restarts=0",
        str(ROOT / "tools/train_net.py"),
        "--config-file",
    ]
    ran = subprocess.run(
        [*command, str(QUICKSTART), *TINY, poison, f"output_dir={folder}"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert ran.returncode, ran.stdout
    bundles = [folder / f"non_finite/iter_0000001_rank{rank}" for rank in (0, 1)]
    samples = [read_bundle(bundle).samples for bundle in bundles]
    ((bad,),) = [[sample["file_name"] for sample in samples[1]]]
    said = [line for line in ran.stderr.splitlines() if "] error: training diverged: " in line]
    # Both processes would say the same.
    assert len(said) == 1, ran.stderr
    assert f"losses are not finite, of rank 1: {bad}. The step" in said[0]
    assert f"recorded in {bundles[1]};" in said[0]
    code, out, _ = run_tool("replay", bundles[0], "--trust-imports")
    assert code == 1
    assert "not in the share of rank 0, which is finite" in out
    code, out, err = run_tool("replay", bundles[1], "--trust-imports")
    assert code == 0, out + err
    assert f"in the image {bad} (0 of part 0): 1 NaN of 12288" in out
