"""MlflowSink: a run at MLflow's tracking server, or in its database or folder."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from stopctl.core.errors import SettingError
from stopctl.store import strict
from stopctl.store.journal import mapping, metrics, sentence

log = logging.getLogger("stopctl")

NAME = "stopctl.run"
"""The tag by which a run is found again."""

LONGEST = 6000
"""Characters that MLflow takes for the value of a param."""


class MlflowSink:
    """Logs to MLflow; needs ``stopctl[mlflow]``.

    Metrics stand at ``step`` (at the epoch where no steps are counted), ``stopctl/new_best``,
    ``stopctl/saved`` and ``stopctl/stop`` at the first metric's value. The run's notes are its params; what
    MLflow cannot change, a note of another value, is the tag ``stopctl.note.NAME``. The tags
    ``stopctl.decision``, ``stopctl.stopped`` and ``stopctl.checkpoint`` say how it stands, and the status is
    KILLED after a signal, FAILED after an error, else FINISHED.

    Where the run resumes, the newest MLflow run of this ``name`` in this experiment goes on. Points beyond
    the checkpoint stay, as MLflow deletes none: the later one of a step is the one that counts.

    Args:
        name: of the run, no other's in the experiment; without ``"``.
        experiment: made if need be.
        tracking_uri: where; None takes MLFLOW_TRACKING_URI, and what MLflow does without.

    Raises:
        SettingError: mlflow is not installed, or such a name.
    """

    def __init__(self, name: str, *, experiment: str = "Default", tracking_uri: str | None = None) -> None:
        if not isinstance(name, str) or not name or '"' in name:
            raise SettingError(
                f"MlflowSink({name!r}): write the run's name, such as 'lr-0.1', without quotes"
            )
        try:
            import mlflow
        except ImportError as error:
            raise SettingError("MlflowSink needs mlflow: pip install 'stopctl[mlflow]'") from error
        self._mlflow, self._entities = mlflow, mlflow.entities
        self._name, self._experiment, self._uri = name, experiment, tracking_uri
        self._client: Any = None
        self._id = ""
        self._status = "FINISHED"
        self._value = 0.0  # where the next marker stands

    def on_event(self, line: Mapping[str, Any]) -> None:
        """Take up a journal line."""
        tags: dict[str, str] = {}
        params: dict[str, str] = {}
        if self._client is None:
            params, tags = self._begin(line)
        event, numbers = line["event"], metrics(line)
        marked: dict[str, float] = dict(numbers)
        if numbers:
            self._value = next(iter(numbers.values()))
            if line["step"]:
                marked["epoch"] = line["epoch"]
        for mark in ("new_best", "stop"):
            if line.get(mark):
                marked[f"stopctl/{mark}"] = self._value
        if stop := mapping(line.get("stop")):
            tags["stopctl.stopped"] = str(stop["text"])
        if event == "saved":
            marked["stopctl/saved"] = self._value
            tags["stopctl.checkpoint"] = line["name"]
        if text := sentence(line):
            tags["stopctl.decision"] = text
        if event == "preempted":
            self._status = "KILLED"
        if event == "close" and line.get("error") and self._status != "KILLED":
            self._status = "FAILED"
        if not (marked or params or tags):
            return
        now, at = int(time.time() * 1000), line["step"] or line["epoch"]
        made = self._entities
        self._client.log_batch(
            self._id,
            metrics=[made.Metric(_key(name), value, now, at) for name, value in marked.items()],
            params=[made.Param(name, value) for name, value in params.items()],
            tags=[made.RunTag(name, value) for name, value in tags.items()],
        )

    def close(self) -> None:
        """End the run at MLflow; another opening goes on with it."""
        if self._client is not None:
            self._client.set_terminated(self._id, self._status)
            self._client, self._status = None, "FINISHED"

    def _begin(self, line: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
        """Make the run, or find it; returns the params and tags that it lacks of the notes."""
        client: Any = self._mlflow.MlflowClient(tracking_uri=self._uri)
        experiment = client.get_experiment_by_name(self._experiment)
        where = client.create_experiment(self._experiment) if experiment is None else experiment.experiment_id
        given = {_key(name): _text(value) for name, value in mapping(line.get("notes")).items()}
        there: Mapping[str, str] = {}
        before: list[Any] = []
        if line["event"] == "resume":
            newest = {"order_by": ["attribute.start_time DESC"], "max_results": 1}
            before = client.search_runs([where], filter_string=f'tags."{NAME}" = "{self._name}"', **newest)
            if not before:
                text = "MlflowSink: experiment %s has no run %s to go on with; a new one is begun"
                log.warning(text, self._experiment, self._name)
        if before:
            self._id, there = before[0].info.run_id, before[0].data.params
            client.update_run(self._id, status="RUNNING")
        else:
            made = client.create_run(where, run_name=self._name, tags={NAME: self._name})
            self._id = made.info.run_id
        self._client = client
        params = {name: value for name, value in given.items() if name not in there}
        changed = {name: value for name, value in given.items() if there.get(name, value) != value}
        return params, {f"stopctl.note.{name}": value for name, value in changed.items()}


def _key(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w./: -]", "_", name)


def _text(value: object) -> str:
    """A note as a param."""
    return (value if isinstance(value, str) else strict.dumps(value).decode())[:LONGEST]
