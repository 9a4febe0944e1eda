"""Jobs that train in milliseconds: a few Gaussian rows, networks of four units, two epochs."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from configs import CONF, shipped

TINY = [
    "model.likelihood=gaussian",
    "model.latent_dim=2",
    "model.hidden_dims=[4]",
    "data.rows=120",
    "data.features=6",
    "data.rank=2",
    "data.train_size=64",
    "data.validation_size=16",
    "data.test_size=16",
    "trainer.epochs=2",
    "trainer.evaluate_every=1",
    "trainer.batch_size=16",
    "optimizer.learning_rate=0.01",
]


def composed(overrides: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain config of some overrides, without the command: sections are files, a later override wins."""
    choices = {
        "model": "vae",
        "data": "low_rank",
        "optimizer": "adam",
        "trainer": "default",
        "evaluation": "none",
    }
    pairs = [(key, value) for key, _, value in (line.partition("=") for line in overrides)]
    choices |= {key: value for key, value in pairs if key in choices}
    config: dict[str, Any] = {"seed": 0, "trusted_packages": []}
    for section, name in choices.items():
        config[section] = shipped(section, name)
    for key, value in pairs:
        if key in choices:
            continue
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = yaml.safe_load(value)
    return floats(config), choices


def floats(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text."""
    if isinstance(value, dict):
        return {key: floats(item) for key, item in value.items()}
    if isinstance(value, str) and value[:1].isdigit():
        return float(value)
    return value


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Any]:
    """`make_job("model.beta=2", "seed=1")`: a tiny job with these overrides."""
    from research.sweep.job import Job

    def make(*overrides: str) -> Any:
        foreign = ("data.rows", "data.features", "data.rank", "model.likelihood")
        other = {"data=digits", "data=arrays", "data=series"} & set(overrides)
        tiny = [line for line in TINY if not other or not line.startswith(foreign)]
        config, choices = composed([*tiny, *overrides])
        return Job.from_config(config, choices, overrides)

    return make


@pytest.fixture(scope="session")
def make_jobs(make_job: Callable[..., Any]) -> Callable[..., list[Any]]:
    """`make_jobs("model.beta=1,2", "seed=0,1")`: the product of all choices, the last one fastest."""
    import itertools

    def make(*sweeps: str) -> list[Any]:
        choices = []
        for sweep in sweeps:
            key, _, values = sweep.partition("=")
            choices.append([f"{key}={value}" for value in (values.split(",") if "[" not in values else [values])])
        return [make_job(*point) for point in itertools.product(*choices)]

    return make


@pytest.fixture(scope="session")
def make_bounds(make_jobs: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """As `make_jobs`, bound to their data."""
    from research.sweep.job import bind

    return lambda *sweeps: [bind(job) for job in make_jobs(*sweeps)]


@pytest.fixture(scope="session")
def make_options() -> Callable[..., Any]:
    """`make_options(mode="map")`."""
    from research.sweep.options import Options

    def make(**changes: Any) -> Any:
        settings = yaml.safe_load((CONF / "train.yaml").read_text())["sweep"]
        return Options(**{**settings, "mode": "map", "concurrency": 1, **changes})

    return make
