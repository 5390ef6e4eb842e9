"""Writers for tracking services, which may be slow, away, or not installed."""

import importlib
import json
import logging
import re
import sys

import numpy as np
import pytest

from detlite import HookBase, build_trainer
from detlite.engine import hooks
from detlite.engine.hooks import MLflowWriter, WandbWriter
from detlite.engine.hooks.tracking import TrackingWriter
from detlite.errors import ConfigError

WANDB = """
import json, pathlib
class Settings:
    def __init__(self, **keys): self.keys = keys
class Image:
    def __init__(self, array): self.shape = array.shape
class Run:
    def __init__(self, file): self.file, self.summary = file, {}
    def write(self, *entry):
        with open(self.file, "a") as file: file.write(json.dumps(entry) + "\\n")
    def define_metric(self, *names, **keys): self.write("metric", names, keys)
    def log(self, values):
        shown = {k: v.shape if isinstance(v, Image) else v for k, v in values.items()}
        self.write("log", shown)
    def finish(self, exit_code): self.write("finish", self.summary, exit_code)
def init(**keys):
    run = Run(pathlib.Path(keys["dir"]) / "wandb.jsonl")
    del keys["settings"]
    run.write("init", keys)
    return run
"""


def entries(folder, kind):
    text = (folder / "wandb.jsonl").read_text()
    return [entry[1:] for entry in map(json.loads, text.splitlines()) if entry[0] == kind]


@pytest.fixture
def fake_wandb(tmp_path, monkeypatch):
    """A module wandb that writes down its calls; returns how to change it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)

    def write(text=WANDB):
        (folder / "wandb.py").write_text(text)

    write()
    yield write
    sys.modules.pop("wandb", None)


class Summaries(HookBase):
    """A summary after every step, a picture after the last."""

    def after_step(self, trainer):
        trainer.summary = {"memory": 1.0, "value": float(trainer.iter)}
        trainer.pictures = {"cat": np.zeros((4, 6, 3), np.uint8)} if trainer.is_last_step else {}


def test_the_missing_package_is_told_when_the_run_is_built(tiny_config, monkeypatch):
    for name, package in (("WandbWriter", "wandb"), ("MLflowWriter", "mlflow")):
        monkeypatch.setattr(getattr(hooks, name), "PACKAGE", "surely_not_installed")
        config = tiny_config(f"train.hooks=[{{name: {name}}}]")
        with pytest.raises(ConfigError, match=rf"'{name}' needs.*`pip install {package}`"):
            build_trainer(config)


def test_wandb_gets_config_metrics_pictures_and_the_end(small_trainer, tmp_path, fake_wandb):
    (tmp_path / "config.yaml").write_text("solver: {max_iter: 4}\n")
    writer = WandbWriter(output_dir=str(tmp_path), project="p", tags=["a"], mode="offline")
    small_trainer(Summaries(), writer).train()
    ((keys,),) = entries(tmp_path, "init")
    assert keys["config"] == {"solver": {"max_iter": 4}}
    assert (keys["project"], keys["tags"], keys["mode"]) == ("p", ["a"], "offline")
    assert keys["name"] == tmp_path.name
    values = [entry for (entry,) in entries(tmp_path, "log")]
    assert [v["iteration"] for v in values] == [0, 1, 2, 3, 3]
    assert values[1]["value"] == 1.0
    assert values[-1]["pictures/cat"] == [4, 6, 3]
    assert entries(tmp_path, "finish") == [[{"status": "done"}, 0]]


def test_a_failed_run_is_told_as_failed(small_trainer, tmp_path, fake_wandb):
    class Fail(HookBase):
        def after_step(self, trainer):
            raise RuntimeError

    writer = WandbWriter(output_dir=str(tmp_path))
    with pytest.raises(RuntimeError):
        small_trainer(Summaries(), writer, Fail()).train()
    assert entries(tmp_path, "finish") == [[{"status": "failed"}, 1]]


@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_a_resumed_run_goes_on_in_the_same_run(
    small_trainer, tmp_path, fake_wandb, from_checkpoint
):
    first = WandbWriter(output_dir=str(tmp_path))
    small_trainer(Summaries(), first, max_iter=2).train()
    second = WandbWriter(output_dir=str(tmp_path))
    if from_checkpoint:
        second.load_state_dict(first.state_dict())
        (tmp_path / "wandb_run_id.txt").unlink()
    trainer = small_trainer(Summaries(), second)
    trainer.start_iter = 2
    trainer.train()
    ids = [keys["id"] for (keys,) in entries(tmp_path, "init")]
    assert ids[0] == ids[1] is not None
    assert [e["iteration"] for (e,) in entries(tmp_path, "log")] == [0, 1, 1, 2, 3, 3]


def test_a_run_that_begins_anew_is_another_run(tiny_config, fake_wandb, tmp_path):
    ids = []
    for _ in range(2):
        trainer = build_trainer(tiny_config("train.hooks=[{name: WandbWriter}]"))
        next(h for h in trainer.hooks if isinstance(h, hooks.PeriodicCheckpointer)) \
            .checkpointer.remove_run()  # fmt: skip
        trainer.train()
        ids.append((tmp_path / "run/wandb_run_id.txt").read_text())
    assert ids[0] != ids[1]


@pytest.mark.parametrize("error", ["ValueError('no key')", "ConnectionError('away')"])
def test_a_service_that_fails_stops_nothing_and_is_told_once(
    small_trainer, tmp_path, fake_wandb, caplog, monkeypatch, error
):
    monkeypatch.setattr(TrackingWriter, "CLOSE_TIMEOUT", 0.1)
    fake_wandb(WANDB.replace('run.write("init", keys)', f"raise {error}"))
    trainer = small_trainer(Summaries(), WandbWriter(output_dir=str(tmp_path)))
    trainer.train()
    assert trainer.iter == 3
    told = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 2
    assert error[:10] in told[0].getMessage()
    assert "training goes on" in told[0].getMessage()
    # Four summaries and the end; of a service that is known to fail the picture is kept away.
    assert re.search(r"did not get the last [56] messages", told[1].getMessage())


def test_the_writer_stands_behind_the_summary(tiny_config, fake_wandb):
    trainer = build_trainer(tiny_config("train.hooks=[{name: WandbWriter}]"))
    names = [type(hook).__name__ for hook in trainer.hooks]
    assert names.index("MetricSummary") < names.index("WandbWriter")
    assert names.index("WandbWriter") < names.index("PeriodicCheckpointer")


@pytest.mark.filterwarnings("default")
def test_wandb_itself_takes_a_run(small_trainer, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.yaml").write_text("solver: {max_iter: 4}\n")
    for start in (0, 2):
        writer = WandbWriter(output_dir=str(tmp_path), mode="offline")
        trainer = small_trainer(Summaries(), writer, max_iter=start + 2)
        trainer.start_iter = start
        trainer.train()
        assert writer._run is not None
    name = (tmp_path / "wandb_run_id.txt").read_text().strip()
    found = list((tmp_path / "wandb").glob(f"offline-run-*-{name}/*.wandb"))
    assert len(found) >= 1
    assert all(path.stat().st_size > 0 for path in found)
    pictures = list((tmp_path / "wandb").rglob("pictures/*.png"))
    assert len(pictures) == 2


@pytest.mark.filterwarnings("default")
def test_mlflow_itself_takes_a_run(small_trainer, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)  # artifacts lie there
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "config.yaml").write_text("solver: {max_iter: 4, optimizer: {name: SGD}}\n")
    for start in (0, 2):
        writer = MLflowWriter(output_dir=str(tmp_path), tracking_uri=uri, experiment="e")
        trainer = small_trainer(Summaries(), writer, max_iter=start + 2)
        trainer.start_iter = start
        trainer.train()
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert run.data.params == {"solver.max_iter": "4", "solver.optimizer.name": "SGD"}
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "value")
    assert [(m.step, m.value) for m in history] == [(i, i) for i in range(4)]
    (folder,) = client.list_artifacts(run.info.run_id)
    pictures = client.list_artifacts(run.info.run_id, folder.path)
    assert [p.path for p in pictures] == ["pictures/iter_0000001", "pictures/iter_0000003"]


MLFLOW = """
import json, pathlib, types
STORE = pathlib.Path(__file__).parent / "store.json"
class MlflowException(Exception):
    def __init__(self, message, error_code="INTERNAL_ERROR", status=500):
        super().__init__(message)
        self.error_code, self.status = error_code, status
    def get_http_status_code(self): return self.status
class MlflowClient:
    def __init__(self, tracking_uri):
        self.store = json.loads(STORE.read_text()) if STORE.exists() else {"e": [], "runs": {}}
        self.store["uri"] = tracking_uri
    def save(self): STORE.write_text(json.dumps(self.store))
    def get_experiment_by_name(self, name):
        ids = self.store["e"]
        return types.SimpleNamespace(experiment_id=name) if name in ids else None
    def create_experiment(self, name): self.store["e"].append(name); return name
    def get_run(self, run_id):
        if run_id not in self.store["runs"]:
            raise MlflowException("no such run", "RESOURCE_DOES_NOT_EXIST", 404)
    def create_run(self, experiment_id, run_name):
        run_id = f"run{len(self.store['runs'])}"
        run = {"name": run_name, "params": [], "metrics": [], "images": [], "status": ["RUNNING"]}
        self.store["runs"][run_id] = run
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
    def update_run(self, run_id, status):
        self.store["runs"][run_id]["status"].append(status)
    def set_terminated(self, run_id, status):
        self.update_run(run_id, status)
        self.save()
    def log_batch(self, run_id, metrics=(), params=()):
        if len(metrics) > 1000 or len(params) > 100:
            raise MlflowException("too many", "INVALID_PARAMETER_VALUE", 400)
        self.store["runs"][run_id]["params"] += params
        self.store["runs"][run_id]["metrics"] += metrics
    def log_image(self, run_id, image, artifact_file):
        self.store["runs"][run_id]["images"].append(artifact_file)
entities = types.SimpleNamespace(
    Param=lambda key, value: [key, value],
    Metric=lambda name, value, time, step: [name, value, step],
)
"""


@pytest.fixture
def fake_mlflow(tmp_path, monkeypatch):
    """A module mlflow that keeps what it gets in a file; returns how to read that."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "mlflow.py").write_text(MLFLOW)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    yield lambda: json.loads((folder / "store.json").read_text())
    sys.modules.pop("mlflow", None)


def test_mlflow_gets_params_metrics_pictures_and_goes_on_in_its_run(
    small_trainer, tmp_path, fake_mlflow
):
    many = "".join(f"  k{i}: {'x' * 600}\n" for i in range(150))
    (tmp_path / "config.yaml").write_text(f"model:\n{many}")
    for start in (0, 2):
        writer = MLflowWriter(output_dir=str(tmp_path), tracking_uri="u", run_name="mine")
        trainer = small_trainer(Summaries(), writer, max_iter=start + 2)
        trainer.start_iter = start
        trainer.train()
    store = fake_mlflow()
    assert (store["uri"], store["e"]) == ("u", ["detlite"])
    (run,) = store["runs"].values()
    assert run["name"] == "mine"
    assert [key for key, _ in run["params"]] == [f"model.k{i}" for i in range(150)]
    assert {len(value) for _, value in run["params"]} == {500}
    assert [m[1:] for m in run["metrics"] if m[0] == "value"] == [[i, i] for i in range(4)]
    assert run["images"] == [f"pictures/iter_000000{i}/cat.jpg" for i in (1, 3)]
    assert run["status"] == ["RUNNING", "FINISHED", "RUNNING", "FINISHED"]


def test_a_run_that_someone_has_deleted_at_the_service_begins_anew(
    small_trainer, tmp_path, fake_mlflow
):
    writer = MLflowWriter(output_dir=str(tmp_path))
    writer.load_state_dict({"run_id": "deleted"})
    small_trainer(Summaries(), writer).train()
    assert list(fake_mlflow()["runs"]) == ["run0"]
    assert (tmp_path / "mlflow_run_id.txt").read_text() == "run0\n"


def test_a_stopped_run_is_told_as_killed(small_trainer, tmp_path, fake_mlflow):
    class Stop(HookBase):
        def after_step(self, trainer):
            trainer.request_stop("signal")

    small_trainer(Summaries(), MLflowWriter(output_dir=str(tmp_path)), Stop()).train()
    (run,) = fake_mlflow()["runs"].values()
    assert run["status"][-1] == "KILLED"


@pytest.mark.parametrize(
    ("status", "hopeless"),
    [(400, True), (404, True), (408, False), (429, False), (500, False), (503, False)],
)
def test_what_a_server_refuses_is_not_asked_again(tmp_path, fake_mlflow, status, hopeless):
    mlflow = importlib.import_module("mlflow")
    writer = MLflowWriter(output_dir=str(tmp_path))
    assert writer.is_hopeless(mlflow.MlflowException("x", status=status)) is hopeless
    assert writer.is_hopeless(ConnectionError("away")) is False
