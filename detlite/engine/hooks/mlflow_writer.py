"""Metrics and pictures for MLflow (https://mlflow.org)."""

import time
from typing import Any

import numpy as np

from ..registries import HOOK_REGISTRY
from ..run_files import flatten_config
from .tracking import TrackingWriter

# Limits of the service.
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
_LONGEST_PARAM = 500

_ENDS = {"done": "FINISHED", "stopped early": "FINISHED", "failed": "FAILED"}


@HOOK_REGISTRY.register
class MLflowWriter(TrackingWriter):
    """Sends config, metrics and pictures to MLflow; needs the package mlflow or mlflow-skinny.

    Args:
        output_dir: Folder of the run.
        tracking_uri: Of the server, such as ``http://host:5000`` or ``sqlite:///mlflow.db``; null:
            what ``MLFLOW_TRACKING_URI`` says.
        experiment: Where the run appears; made if it is not there.
        run_name: Null: that of the output folder.
    """

    PACKAGE = "mlflow"
    INSTALL = "mlflow"
    SERVICE = "MLflow"

    def __init__(
        self,
        *,
        output_dir: str,
        tracking_uri: str | None = None,
        experiment: str = "detlite",
        run_name: str | None = None,
    ) -> None:
        super().__init__(output_dir=output_dir)
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.run_name = run_name
        self._client: Any = None
        self._mlflow: Any = None

    def start(self, config: dict[str, Any]) -> None:
        """Begin a run, or go on with the one of before."""
        # Here and not above: an optional dependency.
        import mlflow

        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=self.tracking_uri)
        if self.run_id is not None and self._is_known(self.run_id):
            self._client.update_run(self.run_id, status="RUNNING")
            return
        name = self.run_name or self.folder.resolve().name
        run = self._client.create_run(self._experiment_id(), run_name=name)
        self.keep_run_id(run.info.run_id)
        params = [
            mlflow.entities.Param(key, str(value)[:_LONGEST_PARAM])
            for key, value in flatten_config(config).items()
        ]
        for i in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self.run_id, params=params[i : i + _PARAMS_AT_ONCE])

    def send_metrics(self, values: dict[str, float], iteration: int) -> None:
        """Send the values of an iteration."""
        now = int(time.time() * 1000)
        metrics = [
            self._mlflow.entities.Metric(name, value, now, iteration)
            for name, value in values.items()
        ]
        for i in range(0, len(metrics), _METRICS_AT_ONCE):
            self._client.log_batch(self.run_id, metrics=metrics[i : i + _METRICS_AT_ONCE])

    def send_pictures(self, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Send pictures (H, W, 3), a folder an iteration."""
        for name, picture in pictures.items():
            file = f"pictures/iter_{iteration:07d}/{name}.jpg"
            self._client.log_image(self.run_id, picture, artifact_file=file)

    def end(self, status: str) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.run_id, status=_ENDS.get(status, "KILLED"))

    def is_hopeless(self, error: Exception) -> bool:
        """Whether the server has refused it, which it would do again; one that is away has not."""
        code = getattr(error, "get_http_status_code", None)
        if code is None:
            return super().is_hopeless(error)
        return 400 <= code() < 500 and code() not in (408, 429)

    def _is_known(self, run_id: str) -> bool:
        try:
            self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except self._mlflow.MlflowException:
                # Another run may have made it in between.
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)
