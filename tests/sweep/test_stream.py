"""Laws of streamed rows: training on blocks of them gives the bits of training on rows in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from research import compiling
from research.sweep import blocks, memory, stream
from research.sweep.device import on_device
from research.sweep.measure import measure
from research.sweep.plan import JobGroup, plan
from research.sweep.program import Alone
from research.sweep.programs import program_of
from research.tree import ConfigError

Make = Callable[..., Any]
N, BATCH = 300, 16
PROGRAMS: Any = (stream.train_block, stream.evaluate_block, stream.end_chunk, stream.means, stream.begin_epoch)
SMALL = (f"trainer.batch_size={BATCH}", "trainer.evaluation_batch=10", "data.train_size=180")
SIZES = ("model.likelihood=gaussian", "data.validation_size=null", "data.test_size=null")


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory, make_bounds: Make) -> Make:
    """`bound(True, "model.beta=2")`: a job whose rows are streamed, or in memory."""
    folder, random = tmp_path_factory.mktemp("rows"), np.random.default_rng(0)
    vectors = random.normal(3, 2, (N, 6))
    vectors[:, 2] = random.integers(0, 3, N)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "images.npy", random.integers(0, 256, (N, 4, 4)).astype(np.uint8))

    def make(streamed: bool, *changes: str, file: str = "vectors") -> Any:
        data = ("data=arrays", f"data.path={folder / file}.npy", f"data.stream={str(streamed).lower()}")
        return make_bounds(*data, *SMALL, *SIZES, *changes)[0]

    return make


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch has 11 steps in blocks of 4, 4 and 3; validation rows fill several blocks, too."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5 * BATCH * 6 * 4)


def program(bound: Any) -> Any:
    return program_of(JobGroup((bound,), "map", 1, 0, 0, ""), on_device(bound.dataset))


def trained(running: Any, chunks: Sequence[int] = (1, 2)) -> list[tuple[str, np.ndarray]]:
    """Metrics of all chunks, scores and the last state, by name."""
    metrics = [running.read(running.train(epochs)) for epochs in chunks]
    state = running.collect()
    leaves = jax.tree_util.tree_leaves_with_path((metrics, running.score(state), state))
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def different(one: list[tuple[str, np.ndarray]], other: list[tuple[str, np.ndarray]]) -> list[str]:
    """Names of what is not equal bit for bit."""
    assert [name for name, _ in one] == [name for name, _ in other]
    pairs = zip(one, other, strict=True)
    return [name for (name, a), (_, b) in pairs if a.dtype != b.dtype or a.tobytes() != b.tobytes()]


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("vectors", ["data.target=2", "data.task=classes", "model.conditional=true"]),
        ("vectors", ["trainer.accumulate=2", "trainer.ema=0.9", "trainer.keep=last"]),
        ("images", ["data.scaling=unit", "model.likelihood=bernoulli", "trainer.keep=last"]),
        (
            "vectors",
            [
                "model=dense_ae",
                "model.reads_mask=true",
                "data.hide_train=0.3",
                "data.folds=3",
                "data.fold=1",
                "data.train_size=null",
            ],
        ),
    ],
)
def test_streamed_rows_train_to_the_bits_of_rows_in_memory(bound, file, changes):
    running = program(bound(True, *changes, file=file))
    assert isinstance(running, stream.Stream)
    assert isinstance(stored := program(bound(False, *changes, file=file)), Alone)
    assert not different(trained(running), trained(stored))


def test_a_block_holds_no_more_rows_than_it_may_and_the_last_one_may_be_shorter(bound, monkeypatch):
    running, sizes = program(bound(True)), []
    original = stream.train_block
    monkeypatch.setattr(
        stream, "train_block", lambda *given: sizes.append((len(given[4].train), int(given[7]))) or original(*given)
    )
    running.train(1)
    assert sizes == [(4 * BATCH, 4), (4 * BATCH, 4), (4 * BATCH, 3)]


def test_compiling_builds_every_program_that_training_and_scores_call(bound):
    running = program(bound(True))
    running.compile()
    before, state = [each.jitted._cache_size() for each in PROGRAMS], running.collect()
    trained(running)
    assert [each.jitted._cache_size() for each in PROGRAMS] == before
    assert state.step == 0


def test_every_program_takes_compiler_options(bound, monkeypatch):
    """Users have options, the suite has none (see `conftest`); JAX refuses them in a program that another one calls."""
    monkeypatch.setattr(compiling, "options", lambda: {"xla_backend_optimization_level": 0})
    for each in PROGRAMS:
        monkeypatch.setitem(vars(each), "jitted", None)  # so that it is restored
        del vars(each)["jitted"]
    assert trained(program(bound(True)), (1,))


def test_a_resumed_training_gives_the_bits_of_one_without_a_break(bound):
    whole, first, second = (program(bound(True)) for _ in range(3))
    metrics = [whole.read(whole.train(1)) for _ in range(2)][1]
    first.train(1)
    second.resume(first.collect(), 1, [(0, 1)])
    again = second.read(second.train(1))
    assert {name: value.tobytes() for name, value in metrics.items()} == {n: v.tobytes() for n, v in again.items()}


def test_a_run_that_has_stopped_trains_no_more(bound):
    for changes in (["trainer.target_loss=1e9"], ["trainer.target_loss=1e9", "trainer.keep=last"]):
        both = [program(bound(streamed, *changes)) for streamed in (True, False)]
        assert not different(*(trained(running, (1, 1)) for running in both))
        assert both[0].collect().stopped_epoch == 1


def test_a_step_that_is_not_finite_is_marked_as_for_rows_in_memory(bound):
    changes = ["optimizer.learning_rate=1e30"]
    both = [program(bound(streamed, *changes)) for streamed in (True, False)]
    assert not different(*(trained(running, (1, 1)) for running in both))
    assert both[0].collect().first_bad_step >= 0


def test_a_model_starts_from_the_first_training_rows_if_they_are_too_many(bound, monkeypatch):
    monkeypatch.setattr(stream, "START_BYTES", 50 * 6 * 4)
    job = bound(True, "model.likelihood=gaussian", "model.output_bias=mean")
    split, bias = job.dataset.split(None), program(job).state.params["decoder"]["output"]["bias"]
    rows = split.prepare(job.dataset.examples.take(split.train[:50])).x
    np.testing.assert_allclose(np.asarray(bias)[:6], rows.mean(0), atol=1e-5)


def test_streamed_rows_count_in_the_plan_by_their_blocks(bound, make_options):
    streamed, stored = bound(True), bound(False)
    assert measure(streamed).data_bytes == (blocks.IN_FLIGHT + 1) * 4 * BATCH * 6 * 4
    assert measure(stored).data_bytes == N * 6 * 4
    assert measure(streamed).metrics == measure(stored).metrics
    (group,) = plan([streamed], make_options(mode="auto"))
    assert group.mode == "map"


def test_a_memory_limit_counts_the_blocks(bound, make_options, monkeypatch):
    (group,) = plan([bound(True)], make_options(memory_limit=10**9))
    assert memory.fitted(group, make_options(memory_limit=10**9)) == [group]
    before = memory.measured(group)[1]
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 12 * BATCH * 6 * 4)
    grown = (blocks.IN_FLIGHT + 2) * 7 * BATCH * 6 * 4  # blocks of 11 steps, not of 4; the compiled program holds one
    assert memory.measured(group)[1] - before == pytest.approx(grown, rel=0.5)
    with pytest.raises(ConfigError, match="memory_limit"):
        memory.fitted(group, make_options(memory_limit=10_000))


def test_vmap_mode_is_refused_with_a_remedy(bound, make_options):
    with pytest.raises(ConfigError, match=r"sweep.mode=vmap: .*set sweep.mode=map"):
        plan([bound(True), bound(True, "seed=1")], make_options(mode="vmap"))
    groups = plan([bound(True), bound(True, "seed=1")], make_options(mode="auto"))
    assert [(group.mode, group.width, len(group.members)) for group in groups] == [("map", 1, 2)]
