"""Time steps of sequences: which of them are valid, sequences backwards in time, and summaries of states."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped


def valid_steps(length: Int[Array, " B"] | None, steps: int) -> Bool[Array, "B T"] | None:
    """True for the time steps before `length`, [B, T]; None if every row has its full length."""
    return None if length is None else jnp.arange(steps)[None] < length[:, None]


def over_steps(values: Float[Array, "B ..."], length: Int[Array, " B"] | None) -> Float[Array, " B"]:
    """Values [B] as they are; values [B, T] summed over the valid steps."""
    if values.ndim == 1:
        return values
    valid = valid_steps(length, values.shape[1])
    return (values if valid is None else jnp.where(valid, values, 0.0)).sum(-1)


def flip(x: Shaped[Array, "B T C"], length: Int[Array, " B"] | None) -> Shaped[Array, "B T C"]:
    """Every row backwards in time within its length; padding stays at the end."""
    if length is None:
        return jnp.flip(x, axis=1)
    times = jnp.arange(x.shape[1])[None]
    times = jnp.where(times < length[:, None], length[:, None] - 1 - times, times)
    return jnp.take_along_axis(x, times[..., None], axis=1)


def last_step(states: Float[Array, "B T D"], length: Int[Array, " B"] | None) -> Float[Array, "B D"]:
    """The states at the last valid step of every row, [B, D]."""
    if length is None:
        return states[:, -1]
    chosen = (jnp.arange(states.shape[1])[None] == length[:, None] - 1)[..., None]
    return jnp.where(chosen, states, 0.0).sum(1)  # a gather is slow under vmap


def summarize(
    states: Float[Array, "B T features"], length: Int[Array, " B"] | None, how: str, backwards: int = 0
) -> Float[Array, "B features"]:
    """The states of all steps as one vector: the last one, or the mean or the maximum over valid steps.

    The last `backwards` features run from the end: their last state is the state at the first step.
    """
    if how == "last":
        forwards = states.shape[-1] - backwards
        last = last_step(states[..., :forwards], length)
        return jnp.concatenate([last, states[:, 0, forwards:]], axis=-1) if backwards else last
    valid = valid_steps(length, states.shape[1])
    if how == "mean":
        if valid is None:
            return states.mean(1)
        count = jnp.maximum(valid.sum(1), 1)[:, None]
        return jnp.where(valid[..., None], states, 0.0).sum(1) / count
    return (states if valid is None else jnp.where(valid[..., None], states, -jnp.inf)).max(1)
