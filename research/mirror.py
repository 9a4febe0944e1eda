"""The command `scripts/mirror.py`: one-way copies of finished runs in MLflow or Weights & Biases.

Run folders stay the authority, and nothing is read back. A run is known by its `config_hash`, and its content by the
digest of `result.json`: the same command again adds only runs that are new, and those that were evaluated anew.
"""

import argparse
import dataclasses
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from research.errors import ConfigError
from research.report.collect import Run, collect
from research.runs.files import digest
from research.runs.folder import TRAINED, RunFolder

TARGETS = {"mlflow": "sqlite:///mlflow.db", "wandb": "."}  # and where they are by default
DONE = "result_sha256"  # the tag that MLflow's runs get last
LONGEST = 6000  # characters of a value in MLflow
PRIVATE = {"x_disable_meta": True, "x_disable_stats": True, "x_save_requirements": False}  # nothing of the machine
Change = Literal["new", "evaluated anew", "as before"]


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    options = argparse.ArgumentParser(
        prog="mirror.py",
        description="Copy the finished runs of a sweep to MLflow or Weights & Biases; again adds only what is new.",
        epilog="then: mlflow ui --backend-store-uri sqlite:///mlflow.db, or: wandb sync wandb/offline-run-*",
    )
    options.add_argument("sweep", metavar="SWEEP_FOLDER", help="folder of a sweep")
    options.add_argument("--to", required=True, choices=tuple(TARGETS), help="where to")
    options.add_argument(
        "--store",
        help="MLflow: a tracking URI (default: sqlite:///mlflow.db). W&B: the folder that gets wandb/ (default: .)",
    )
    options.add_argument("--project", metavar="NAME", help="experiment or project (default: the name of the sweep)")
    options.add_argument("--parameters", action="store_true", help="copy params.safetensors too")
    return options


def main() -> None:
    """Entry point of `scripts/mirror.py`."""
    arguments = parser().parse_args()
    runs = collect(arguments.sweep)
    ended = [run for run in runs if run.status in TRAINED]
    contents = [content_of(Path(arguments.sweep), run, arguments.parameters) for run in ended]
    store = TARGETS[arguments.to] if arguments.store is None else arguments.store
    mirror = {"mlflow": MLflow, "wandb": WandB}[arguments.to](store, arguments.project or runs.name)
    counts = Counter(mirror.add(content) for content in contents)
    numbers = ", ".join(f"{count} {change}" for change, count in counts.items()) or "none has ended"
    sys.stderr.write(f"{len(contents)} of {len(runs)} runs are in {store}: {numbers}\n")
    if arguments.parameters and counts["as before"]:
        sys.stderr.write("note: copies that were made without --parameters stay so; --store=... makes new ones\n")


@dataclasses.dataclass(frozen=True)
class Content:
    """What is copied of a run.

    Attributes:
      digest: of `result.json`.
      config: flat config and choices.
      tags: what else `result.json` says of the run.
      curves: step and metrics of every evaluation during training.
      results: final metrics; those that have a curve too are named `final/...`.
      files: name in the copy -> file.
      start, end: of the training, in seconds since 1970.
    """

    name: str
    config_hash: str
    digest: str
    status: str
    config: dict[str, Any]
    tags: dict[str, str]
    curves: list[tuple[int, dict[str, float]]]
    results: dict[str, float]
    files: dict[str, Path]
    start: float
    end: float

    @property
    def last_step(self) -> int:
        return self.curves[-1][0] if self.curves else 0


def content_of(sweep: Path, run: Run, parameters: bool = False) -> Content:
    """What is copied of a run that has ended.

    Raises:
      ConfigError: a file of the run is not the one that its result was written with.
    """
    folder = RunFolder(sweep / run.run_id)
    folder.check_seal()
    config_hash = folder.read_config()["config_hash"]
    curves = [(int(row.pop("step")), row) for row in folder.read_metrics()]
    drawn = {name for _, row in curves for name in row}
    results = {name: value for name, value in run.metrics.items() if value is not None}
    files = {f"figures/{path.name}": path for path in sorted(folder.figures.glob("*.png"))}
    if parameters and folder.parameters.exists():
        files[folder.parameters.name] = folder.parameters
    more = {"reason": run.reason, "commit": run.commit, "command": run.command, "data_sha256": run.data_sha256}
    tags = {
        "status": run.status,
        "config_hash": config_hash,
        "overrides": " ".join(run.overrides),
        "run_id": run.run_id,
    }
    return Content(
        name=run.run_id,
        config_hash=config_hash,
        digest=digest(folder.result),
        status=run.status,
        config=dict(run.values),
        tags=tags | {name: value for name, value in more.items() if value},
        curves=curves,
        results={f"final/{name}" if name in drawn else name: value for name, value in results.items()},
        files=files,
        start=(run.written or 0.0) - (run.seconds or 0.0),
        end=run.written or 0.0,
    )


class MLflow:
    """Runs of an MLflow experiment. A run that was evaluated anew keeps its copy, which gets the new results."""

    def __init__(self, store: str, project: str):
        if ":" not in store:
            raise ConfigError("--store", store, "expected a tracking URI, such as sqlite:///mlflow.db")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        try:
            import alembic  # noqa: F401  # of a store in a database
            import sqlalchemy  # noqa: F401
            from mlflow import entities
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise _missing("mlflow", error) from None
        self._make = entities
        try:
            self._client = MlflowClient(tracking_uri=store)
            experiment = self._client.get_experiment_by_name(project)
            if experiment is None:
                database = store.removeprefix("sqlite:///")
                files = None if database == store else (Path(database).absolute().parent / "mlruns" / project).as_uri()
                self._experiment = self._client.create_experiment(project, artifact_location=files)
            else:
                self._experiment = experiment.experiment_id
            self._present = {run.data.tags.get("config_hash"): run for run in self._runs()}
        except MlflowException as error:
            raise ConfigError("--store", store, f"MLflow cannot use it ({error})") from None

    def _runs(self) -> Iterator[Any]:
        token = None
        while token != "":
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token or ""

    def add(self, content: Content) -> Change:
        """Copy a run; one that an interrupted command copied in part is copied anew."""
        entities, client, present = self._make, self._client, self._present.get(content.config_hash)
        done = None if present is None else present.data.tags.get(DONE)
        if done == content.digest:
            return "as before"
        end = int(1000 * content.end)
        metrics = [entities.Metric(_name(k), v, end, content.last_step) for k, v in content.results.items()]
        params = []
        if present is not None and done:
            number = present.info.run_id
        else:
            if present is not None:
                client.delete_run(present.info.run_id)
            begun = int(1000 * content.start)
            tags = {"config_hash": content.config_hash}
            run = client.create_run(self._experiment, begun, tags, run_name=content.name)
            number = run.info.run_id
            params = [entities.Param(_name(k), str(v)[:LONGEST]) for k, v in content.config.items()]
            metrics += [entities.Metric(_name(k), v, end, step) for step, row in content.curves for k, v in row.items()]
        for part in _parts(params, 100):
            client.log_batch(number, params=part)
        for part in _parts(metrics, 1000):
            client.log_batch(number, metrics=part)
        for name, path in content.files.items():
            client.log_artifact(number, str(path), str(Path(name).parent) if "/" in name else None)
        client.set_terminated(number, "FAILED" if content.status == "diverged" else "FINISHED", end)
        tags = {name: value[:LONGEST] for name, value in content.tags.items()} | {DONE: content.digest}
        client.log_batch(number, tags=[entities.RunTag(name, value) for name, value in tags.items()])
        return "evaluated anew" if done else "new"


class WandB:
    """Runs of Weights & Biases in `wandb/` of a folder, offline unless `WANDB_MODE` says otherwise.

    What was written cannot be changed, so a run that was evaluated anew gets a second copy.
    """

    def __init__(self, store: str, project: str):
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise _missing("wandb", error) from None
        self._wandb, self._folder, self._project = wandb, Path(store) / "wandb", project

    def add(self, content: Content) -> Change:
        """Copy a run; its folder appears when it is complete."""
        number = content.config_hash[:12]
        copies = {path.name.rpartition("-")[2] for path in self._folder.glob(f"*run-*-{number}-*")}
        if content.digest[:8] in copies:
            return "as before"
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mirror-", dir=self._folder) as folder:
            run = self._wandb.init(
                project=self._project,
                dir=folder,
                id=f"{number}-{content.digest[:8]}",
                name=content.name,
                group=self._project,
                tags=[content.status],
                config=content.config | {name: value for name, value in content.tags.items() if name != "run_id"},
                mode=os.environ.get("WANDB_MODE", "offline"),
                settings=self._wandb.Settings(silent=True, console="off", disable_git=True, **PRIVATE),
            )
            for step, row in content.curves:
                run.log(row, step=step)
            pictures = {name: path for name, path in content.files.items() if path.suffix == ".png"}
            if pictures:
                drawn = {name.removesuffix(".png"): self._wandb.Image(str(path)) for name, path in pictures.items()}
                run.log(drawn, step=content.last_step)
            for name in content.files.keys() - pictures.keys():
                shutil.copy(content.files[name], Path(run.dir) / name)
                run.save(str(Path(run.dir) / name), base_path=run.dir, policy="now")
            run.summary.update(content.results)
            run.finish(exit_code=int(content.status == "diverged"))
            for path in Path(folder, "wandb").glob("*run-*-*"):
                if not path.is_symlink():
                    path.rename(self._folder / path.name)
        return "evaluated anew" if copies else "new"


def _missing(target: str, error: ModuleNotFoundError) -> ConfigError:
    return ConfigError("--to", target, f"{error.name} is missing: pip install -c constraints.txt -e '.[{target}]'")


def _name(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
