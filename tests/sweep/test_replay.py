"""A divergence has a step, a quantity, a layer and an operation."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from configs import budget

from research import compiling
from research.clock import Clock
from research.data import Examples
from research.sweep.command import prepare, run
from research.sweep.proof.replay import first_bad, first_operation
from research.sweep.proof.verify import main
from research.sweep.train.display import Display

Jobs = Callable[..., list[Any]]
GROWS = ("optimizer=sgd", "optimizer.warmup_epochs=4", "trainer.epochs=4")  # finite in the first epoch


@pytest.fixture
def train(tmp_path: Path, make_options: Callable[..., Any]) -> Callable[..., list[Any]]:
    """`train(jobs, mode="vmap")`: a sweep in the folder `sweep`."""

    def call(jobs: list[Any], name: str = "sweep", **options: Any) -> list[Any]:
        chosen = make_options(**options)
        about = {"name": name, "objective": "validation/loss", "options": chosen, "display": Display()}
        return run(prepare(jobs, tmp_path / name, chosen), jobs, **about)

    return call


@pytest.fixture
def replayed(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, list[str]]]:
    """`replayed(run_folder)`: exit code and lines."""

    def call(folder: Path) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main([str(folder.parent), "--replay", folder.name])
        return code, capsys.readouterr().out.splitlines()

    return call


def test_a_divergence_has_a_step_a_quantity_and_an_operation(train: Any, make_jobs: Jobs, replayed: Any) -> None:
    (outcome,) = train(make_jobs(*GROWS, "optimizer.learning_rate=4"), checkpoint_every=1)
    step = outcome.result["first_bad_step"]
    code, lines = replayed(outcome.folder)
    assert code == 0
    assert lines[0] == f"it diverged at step {step} (epoch {step // 4 + 1}) of 16"
    assert lines[1] == f"from the checkpoint of epoch {step // 4}"
    assert lines[2] == f"step {step} (epoch {step // 4 + 1}) is the first that is not finite"
    assert lines[3].startswith("first not finite: metric ")
    assert lines[4].startswith("gradient not finite in: ")
    assert lines[5].startswith("first operation that gives something not finite: ")
    # and from the beginning the same
    shutil.rmtree(outcome.folder.parent / ".groups")
    code, again = replayed(outcome.folder)
    assert code == 0
    assert again[1] == "from the beginning: no checkpoint lies before that step"
    assert [again[0], *again[2:]] == [lines[0], *lines[2:]]


def test_a_member_is_taken_out_of_the_state_of_its_group(train: Any, make_jobs: Jobs, replayed: Any) -> None:
    jobs = make_jobs(*GROWS, "optimizer.learning_rate=0.001,3.5,0.01")  # the last epoch: two states are kept
    (_, wild, _) = train(jobs, mode="vmap", checkpoint_every=1)
    step = wild.result["first_bad_step"]
    code, lines = replayed(wild.folder)
    assert code == 0
    assert lines[1] == f"from the checkpoint of epoch {step // 4}"
    assert lines[2] == f"step {step} (epoch {step // 4 + 1}) is the first that is not finite"
    # a damaged state is told, and not used
    for path in wild.folder.parent.glob(".groups/*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    code, again = replayed(wild.folder)
    assert code == 0
    assert any("it is damaged" in line and "starts from the beginning" in line for line in again)
    assert "from the beginning: no checkpoint lies before that step" in again
    assert again[-4:] == lines[-4:]


def test_a_warm_start_is_replayed_from_its_parameters(train: Any, make_jobs: Jobs, replayed: Any) -> None:
    """Fresh parameters are finite; those of the start are too, but their loss is not."""
    (begun,) = train(make_jobs("seed=3"), name="begun")
    from research.runs.files import ALONE
    from research.runs.folder import RunFolder

    run = RunFolder(begun.folder, ALONE)
    params, scaling = run.load_parameters()
    run.save_parameters(jax.tree.map(lambda leaf: leaf * np.float32(1e12), params), scaling)
    run.write_result({**begun.result, "files": run.hashes()})
    (outcome,) = train(make_jobs(f"trainer.warm_start={begun.folder}", "seed=0"))
    assert outcome.result["first_bad_step"] == 0
    code, lines = replayed(outcome.folder)
    assert code == 0
    assert "step 0 (epoch 1) is the first that is not finite" in lines


def test_a_run_that_stays_finite_alone_is_told(train: Any, make_jobs: Jobs, replayed: Any) -> None:
    (outcome,) = train(make_jobs("seed=0"))
    path = outcome.folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "diverged", "first_bad_step": 5}))
    code, lines = replayed(outcome.folder)
    assert code == 1
    assert lines[-2:] == [
        "alone, in map mode, all 8 steps are finite; it was trained in map mode",
        "at width 1: the divergence depends on the last bits",
    ]


def test_an_epoch_is_compiled_with_the_options_of_the_run(
    train: Any, make_jobs: Jobs, replayed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outcome,) = train(make_jobs(*GROWS, "optimizer.learning_rate=4"))
    monkeypatch.setattr(compiling, "options", lambda: {"xla_no_such_option": 1})
    with pytest.raises(Exception, match="xla_no_such_option"):
        replayed(outcome.folder)


def test_a_result_without_a_step_is_refused(
    train: Any, make_jobs: Jobs, replayed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = train(make_jobs("seed=0"))
    path = outcome.folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "diverged", "first_bad_step": "5"}))
    assert main([str(outcome.folder.parent), "--replay", outcome.folder.name]) == 2
    assert "first_bad_step=5: " in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- quantities


class Line:
    """A model of two layers whose loss can be spoiled."""

    def __init__(self, spoil: Callable[[jax.Array], jax.Array]):
        self.spoil = spoil

    def loss(self, params: Any, batch: Any, key: Any, clock: Any) -> Any:
        hidden = batch.x * params["first"]["kernel"]
        loss = jnp.square(self.spoil(hidden) * params["second"]["kernel"]).mean()
        return loss, {"error": loss}

    def bind(self, facts: Any) -> Any: ...
    def init(self, key: Any, train: Any) -> Any: ...
    def evaluate(self, params: Any, batch: Any, keys: Any) -> Any: ...


CLOCK = Clock(*jnp.zeros(4))


def state_of(optimizer: Any, kernel: float = 1.0) -> Any:
    import types

    params = {name: {"kernel": jnp.full(2, kernel)} for name in ("first", "second")}
    return types.SimpleNamespace(params=params, optimizer_state=optimizer.init(params))


@pytest.mark.parametrize(
    ("spoil", "x", "kernel", "rate", "said"),
    [
        (lambda hidden: hidden, np.nan, 1.0, 0.1, ["first not finite: input x"]),
        (lambda hidden: hidden, 1.0, np.inf, 0.1, ["first not finite: parameter first/kernel (and 1 more)"]),
        (lambda hidden: jnp.log(hidden), -1.0, 1.0, 0.1, ["first not finite: metric error", "every layer", "log of"]),
        # the square root has a finite value and no finite slope at zero
        (jnp.sqrt, 0.0, 1.0, 0.1, ["first not finite: gradient first/kernel", "not finite in: first", "div of"]),
        (lambda hidden: hidden, 1.0, 1.0, np.inf, ["first not finite: update first/kernel", "update not finite in"]),
    ],
)
def test_the_first_quantity_and_its_layers_are_named(
    spoil: Any, x: float, kernel: float, rate: float, said: list[str]
) -> None:
    optimizer = optax.sgd(rate)
    batch = Examples(x=jnp.full(2, x, jnp.float32))
    lines = first_bad(Line(spoil), optimizer, state_of(optimizer, kernel), batch, jax.random.key(0), CLOCK, budget())
    for words in said:
        assert any(words in line for line in lines), lines


def test_the_operation_of_a_later_batch_of_a_step_is_named() -> None:
    optimizer, batch = optax.sgd(0.1), Examples(x=jnp.array([1.0, 1.0, 1.0, -1.0]))
    for settings in ({"accumulate": 2}, {"accumulate": 2, "compute_dtype": "bfloat16"}):
        step = (state_of(optimizer), batch, jax.random.key(0), CLOCK, budget(**settings))
        lines = first_bad(Line(jnp.log), optimizer, *step)
        assert lines[0] == "first not finite: metric error"
        assert "log of shape (2,)" in lines[-1]


def test_an_operation_is_found_inside_calls_and_loops() -> None:
    def place(function: Any, *arguments: Any) -> str | None:
        return first_operation(jax.make_jaxpr(function)(*arguments), arguments)

    with jax.named_scope("never"):
        assert place(lambda x: x + 1, jnp.ones(2)) is None
    assert place(lambda x: jnp.log(x) + 1, -jnp.ones(2)) == "log of shape (2,)"
    assert place(lambda x: jnp.log(x) + 1, jnp.full(2, jnp.nan)) is None  # it comes from outside

    def layer(x: Any) -> Any:
        with jax.named_scope("encoder"):
            return jax.jit(lambda y: jnp.exp(y) - 1)(x)

    assert place(layer, jnp.full(3, 1e9)) == "encoder/exp of shape (3,)"

    def steps(x: Any) -> Any:
        return jax.lax.scan(lambda carry, y: (carry * y, jnp.log(2.5 - carry)), jnp.ones(()), x)

    assert place(steps, jnp.full(6, 2.0)) == "time step 2/log of shape ()"
    assert (
        place(lambda x: jax.lax.scan(*_backwards(), x, reverse=True), jnp.arange(3.0)) == "time step 0/log of shape ()"
    )
    again = jax.checkpoint(lambda x: jnp.log(x) + 1)
    assert place(again, -jnp.ones(2)) == "log of shape (2,)"
    slope = jax.grad(lambda x: (3e38 * again(x)).sum())  # of 3e38 / x
    assert re.search(r"(div|mul) of shape \(2,\)", str(place(slope, jnp.full(2, 0.5))))
    # a function with its own derivative is one operation from outside
    assert "of shape (2,)" in str(place(lambda x: jax.nn.relu(jnp.log(x)), -jnp.ones(2)))


def _backwards() -> tuple[Any, Any]:
    return lambda carry, y: (carry, jnp.log(y)), jnp.ones(())


def test_a_line_of_this_project_is_named() -> None:
    from research.distributions import kl_to_standard_normal

    arguments = (jnp.zeros((2, 3)), jnp.full((2, 3), 1e9))
    found = first_operation(jax.make_jaxpr(kl_to_standard_normal)(*arguments), arguments)
    assert re.fullmatch(r"exp of shape \(2, 3\) in research/distributions\.py:\d+", str(found))
