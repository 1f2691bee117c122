"""A training as other tools show it: TensorBoard events, an MLflow run, where installed and asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec
from typing import Any

from mer_ray.errors import InputError
from mer_ray.learning.settings import TrainSettings

_MOST = 500
"""MLflow takes no longer value of a parameter."""


class Tracker(AbstractContextManager["Tracker"]):
    """Writes each epoch once, from the first on, also those of a run before that is gone on with."""

    def __init__(self, settings: TrainSettings) -> None:
        """Look for what the settings ask for.

        Raises:
            InputError: it is not installed, or is to write where it cannot.
        """
        self._settings, self._done, self._open = settings, 0, ExitStack()
        for flag, wanted, module in (
            ("--tensorboard", settings.tensorboard, "tensorboard"),
            ("--mlflow", settings.mlflow, "mlflow"),
        ):
            if wanted and find_spec(module) is None:
                raise InputError(f"{flag} {wanted}: {module} is not installed; pip install {module}, or leave it out.")
        if (settings.tensorboard or "").startswith("s3://"):
            raise InputError(f"--tensorboard {settings.tensorboard}: give a folder of this machine.")

    def begin(self, config: Mapping[str, Any]) -> None:
        """Open what was asked for; ``config`` is the model's.

        Raises:
            InputError: MLflow does not take the tracking URI.
        """
        settings = self._settings
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = self._open.enter_context(SummaryWriter(settings.tensorboard))
        if settings.mlflow:
            import mlflow

            try:
                mlflow.set_tracking_uri(settings.mlflow)
                mlflow.set_experiment("mer_ray")
                self._open.enter_context(mlflow.start_run(run_name=settings.model.rsplit("/", 1)[-1]))
                mlflow.set_tags({"model": settings.model, "version": config["version"]})
                mlflow.log_params({name: str(value)[:_MOST] for name, value in config["settings"].items()})
            except mlflow.exceptions.MlflowException as error:
                why = str(error).split(". ")[0]
                raise InputError(f"--mlflow {settings.mlflow}: {why}; give another tracking URI.") from error

    def follow(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the epochs of a history that have not been written yet."""
        for line in history[self._done :]:
            epoch = int(line["epoch"]) + 1
            figures = {name: float(value) for name, value in line.items() if name != "epoch"}
            if self._settings.tensorboard:
                for name, value in figures.items():
                    self._events.add_scalar(name, value, epoch)
            if self._settings.mlflow:
                import mlflow

                mlflow.log_metrics(figures, step=epoch)
        self._done = max(self._done, len(history))

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)
