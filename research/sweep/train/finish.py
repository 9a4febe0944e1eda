"""After the training of a run: its evaluation, pictures, parameters and result."""

import time
import traceback
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from research import engine
from research.data.examples import Dataset, Examples
from research.data.loading import binarized, floats, preparation_of, scored
from research.data.preparation import Binarize
from research.evaluation import Findings, Subject, evaluate_run
from research.inputs import FIGURES, purpose_key
from research.metrics import base
from research.models.abilities import unmonitored
from research.runs import events
from research.runs.folder import RunFolder
from research.sweep.job import BoundJob, metric_dependencies
from research.sweep.train.ending import still_improves
from research.sweep.train.writer import TrainedMember
from research.tree import ConfigError, plain

shared: dict[Hashable, Any] = {}  # results that all runs of this process share on one data set and fold
_parts: list[tuple[Dataset, int | None, dict[str, Examples]]] = []


def finish(
    bound: BoundJob, run: RunFolder, content: dict[str, Any], trained: TrainedMember, hparams: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Evaluate a trained member and write all its files, the result last.

    Args:
      bound: its job.
      run: its folder.
      content: fields of the result that are known already.
      trained: what training left.
      hparams: the swept keys and their values; None if the run is evaluated again and has its parameters already.

    Returns:
      The result.
    """
    job, dataset = bound.job, bound.dataset
    file = events.EventFile(run.path, run.lease)
    findings = Findings()
    split = dataset.split(job.data.fold)
    if trained.params is not None and hparams is not None:
        run.save_parameters(trained.params, preparation_of(dataset, job.data.fold).scaling())
    if trained.status != "diverged":
        try:
            subject = Subject(
                bound.model,
                trained.params,
                parts(dataset, job.data.fold),
                job.evaluation,
                dataset.facts,
                purpose_key(job.seed, FIGURES),
                seed=job.seed,
                shift=split.shift,
                scale=split.scale,
                shared=shared,
                data_key=(dataset.sha256, dataset.split_seed, repr(job.data)),
                redraws=redraws(dataset, job.data.fold, job.evaluation.binarizations),
                metrics=trained.metrics,
                target_scale=split.target_scale,
                binary=isinstance(dataset.draw, Binarize),
                columns=dataset.preparation.columns,
                classes=dataset.preparation.classes,
            )
            findings = evaluate_run(subject)
        except ConfigError:
            raise
        except Exception as error:  # the parameters are good, and the next command evaluates them again
            traceback.print_exc()
            content = {**content, "evaluation": None}
            findings.refuse(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", "test/evaluation")
    reference = {f"reference/{name}": value for name, value in dataset.reference.items()}
    metrics = {**trained.metrics, **findings.metrics, **(reference if trained.metrics else {})}
    step = trained.epochs * job.trainer.steps_per_epoch(dataset.facts)
    final = {name: value for name, value in metrics.items() if name.startswith("test/")}
    now = time.time()
    if final:
        file.append([(step, now, final)])
    pictures = {name: events.png(picture) for name, picture in findings.pictures.items()}
    if pictures:
        run.write_figures(pictures)
        file.images(pictures, step)
    for name, values in findings.curves.items():
        file.append([(at, now, {f"curve/{name}": float(value)}) for at, value in enumerate(values)])
    if findings.codes is not None:
        events.projector(run.path, run.lease, findings.codes, findings.labels, findings.sprite)
    if findings.centres is not None:
        run.save_clusters(findings.centres)
    history = run.read_metrics()
    file.layout([name for name in (history or [{}])[-1] if "/" in name])
    if hparams is not None:
        file.hparams(hparams, started=now - (trained.seconds_wall_group or 0.0))
        file.finish(trained.status != "diverged")
        lines = [f"run `{run.path.name}` of the sweep `{run.path.parent.name}`: {trained.status}"]
        lines += [f"command: `{content['command']}`"] if content.get("command") else []
        lines += ["tables, figures and all runs on one page: `report/page.html` (`python scripts/report.py FOLDER`)"]
        file.text("about", "\n\n".join(lines))
    # No value of the losses of a game is better than another, and runs that were stopped ended as they should.
    has_direction = base(job.trainer.monitor) not in unmonitored(bound.model) and trained.status == "completed"
    result = content | {
        "status": trained.status,
        "reason": trained.reason,
        "epochs": trained.epochs,
        "first_bad_step": trained.bad_step if trained.bad_step != engine.NEVER else None,
        "files": content["files"] if hparams is None else run.hashes(),
        "widths": [list(entry) for entry in trained.widths],
        "resumed_at": list(trained.resumed),
        "steps_per_epoch": job.trainer.steps_per_epoch(dataset.facts),
        "still_improves": still_improves(history, job.trainer.monitor) if has_direction else None,
        "best_epoch": trained.best_epoch if trained.best_epoch != engine.NEVER else None,
        "metrics": metrics,
        "trained_metrics": sorted(trained.metrics),
        "null_reasons": findings.null_reasons,
        "depends": metric_dependencies(bound.model),
        "seconds_compile_group": trained.seconds_compile_group,
        "seconds_wall_group": trained.seconds_wall_group,
        "seconds_device_share": trained.seconds_device_share,
    }
    run.write_result(result)
    return result


def evaluate_again(
    bound: BoundJob, run: RunFolder, result: Mapping[str, Any], commit: str | None = None
) -> dict[str, Any]:
    """Evaluate a finished run without training it.

    Args:
      bound: its job.
      run: its folder.
      result: that of the run. Its `commit` stays that of the training.
      commit: of the code that evaluates; the result has it as `evaluation_commit` where it is another one.

    Raises:
      ConfigError: a file of the run does not have the hash that its result states.
    """
    run.check_seal()
    params, _ = run.load_parameters()
    trained = TrainedMember(
        status=result["status"],
        reason=result["reason"],
        params=params,
        epochs=result["epochs"],
        metrics={name: value for name, value in result["metrics"].items() if name in result["trained_metrics"]},
        best_epoch=engine.NEVER if result["best_epoch"] is None else result["best_epoch"],
        bad_step=engine.NEVER if result.get("first_bad_step") is None else result["first_bad_step"],
        widths=[tuple(entry) for entry in result.get("widths", ())],
        resumed=result.get("resumed_at", ()),
        seconds_compile_group=result["seconds_compile_group"],
        seconds_wall_group=result["seconds_wall_group"],
        seconds_device_share=result["seconds_device_share"],
    )
    content = {name: value for name, value in result.items() if name != "evaluation_commit"}
    if commit != result.get("commit"):
        content["evaluation_commit"] = commit
    return finish(bound, run, {**content, "evaluation": plain(bound.job.evaluation)}, trained, None)


def parts(dataset: Dataset, fold: int | None) -> dict[str, Examples]:
    """The rows that `scored` returns; those of the last data set and fold are kept for the next run."""
    if not _parts or _parts[0][0] is not dataset or _parts[0][1] != fold:
        _parts[:] = [(dataset, fold, scored(dataset, fold))]  # only one: dense rows are copies
    return _parts[0][2]


def redraws(dataset: Dataset, fold: int | None, number: int | None) -> Iterator[Examples]:
    """Further random binarisations of the test rows."""
    if isinstance(dataset.draw, Binarize):
        for repetition in range(number or 0):
            yield floats(binarized(dataset, repetition + 1).take(dataset.split(fold).rows("test")))
