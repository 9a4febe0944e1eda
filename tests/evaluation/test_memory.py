import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.examples import Examples, Facts
from research.evaluation import memory
from research.evaluation.memory import gradient_by_distance, reach
from research.tree import spec

STEPS = 7


@spec
class Recurrence:
    """h_t = a h_{t-1} + x_t, and the loss is half the square of the last state of a row."""

    hidden_dim: int
    cell: str = "linear"

    def fresh(self, key):
        return {"a": jnp.ones(())}

    def predict(self, params, batch, nudge=None):
        length = jnp.full(len(batch), batch.x.shape[1]) if batch.length is None else batch.length
        state, nudge = jnp.zeros((len(batch), self.hidden_dim)), jnp.zeros(batch.x.shape) if nudge is None else nudge
        for step in range(batch.x.shape[1]):
            new = params["a"] * state + batch.x[:, step] + nudge[:, step]
            state = jnp.where((step < length)[:, None], new, state)
        return state

    def state_gradients(self, params, batch):
        loss = lambda nudge: 0.5 * jnp.square(self.predict(params, batch, nudge)).sum()
        return jax.grad(loss)(jnp.zeros(batch.x.shape))


def rows(number=5, **fields):
    x = np.random.default_rng(0).normal(size=(number, STEPS, 2)).astype(np.float32)
    return Examples(x=x, **fields)


def test_a_linear_recurrence_forgets_as_its_powers():
    """d loss / d h_{T-1-d} = a^d h_{T-1}, so the norm is |a|^d |h_{T-1}|."""
    model, params, examples = Recurrence(hidden_dim=2), {"a": np.float32(-0.5)}, rows()
    last = np.linalg.norm(model.predict(params, examples), axis=1).mean()
    found = gradient_by_distance(model, params, examples)
    np.testing.assert_allclose(found, last * 0.5 ** np.arange(STEPS), rtol=1e-5)
    assert reach(found) == pytest.approx((STEPS - 1) * np.log10(0.5))


def test_rows_are_aligned_at_their_ends():
    """A row of three steps says nothing of distance 3, whatever lies in its padding."""
    length = np.array([3, 3, 5], np.int32)
    model, params, examples = Recurrence(hidden_dim=2), {"a": np.float32(0.5)}, rows(3, length=length)
    last = np.linalg.norm(model.predict(params, examples), axis=1)
    found = gradient_by_distance(model, params, examples)
    expected = [*(last.mean() * 0.5 ** np.arange(3)), *(last[2] * 0.5 ** np.arange(3, 5)), np.nan, np.nan]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert reach(found) == pytest.approx(np.log10(expected[4] / expected[0]))


def test_rows_beyond_the_first_and_short_batches_count_once(monkeypatch):
    monkeypatch.setattr(memory, "ROWS", 70)  # one batch of 64 rows and one of six
    model, params, examples = Recurrence(hidden_dim=2), {"a": np.float32(1)}, rows(100)
    last = np.linalg.norm(model.predict(params, examples), axis=1)[:70].mean()
    np.testing.assert_allclose(gradient_by_distance(model, params, examples), np.full(STEPS, last), rtol=1e-5)


def test_reach():
    assert reach(np.array([1.0, 0.1, 0.01])) == pytest.approx(-2)
    assert reach(np.array([2.0, 20.0, np.nan])) == pytest.approx(1)
    assert reach(np.array([1.0, 0.0])) == -np.inf
    assert np.isnan(reach(np.zeros(3)))


@pytest.mark.parametrize("changes", [{"layers": 2}, {"cell": "lstm", "bidirectional": True}])
def test_states_of_a_recurrent_predictor(build_model, changes):
    """Against central differences of the loss at one state."""
    facts = Facts("sequence", (STEPS, 2), -3.0, 3.0, 3, 4, 1, 4)
    model = build_model("recurrent_predictor", hidden_dim=4, **changes).bind(facts)
    params, examples = model.fresh(jax.random.key(0)), rows(4, label=np.array([0, 1, 2, 0]))
    nudge, step = np.zeros((4, STEPS, 4), np.float32), 1e-2

    @jax.jit
    def loss(nudge):
        last = f"layer_{changes.get('layers', 1) - 1}"
        shapes = jax.eval_shape(model.module().init, jax.random.key(0), examples.x)["perturbations"]
        pushes = jax.tree.map(lambda shape: jnp.zeros(shape.shape), shapes)
        pushes["layers"][last]["state"] = jnp.asarray(nudge)
        batch = jax.tree.map(jnp.asarray, examples)
        return model.scores(model.predict(params, batch, perturbations=pushes), batch)["loss"]

    expected = []
    for distance in (0, STEPS - 1):
        slopes = []
        for unit in range(4):
            nudge[:, STEPS - 1 - distance, unit] = step
            slopes.append((loss(nudge.copy()) - loss(-nudge)) / (2 * step))  # a copy, since `nudge` changes below
            nudge[:] = 0
        expected.append(np.linalg.norm(slopes, axis=0).mean())
    found = gradient_by_distance(model, params, examples)
    np.testing.assert_allclose(found[[0, -1]], expected, rtol=2e-2)
