"""Recurrent cells, and stacks of them scanned over time."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

CELLS = ("rnn", "irnn", "gru", "lstm")
GATES = {"rnn": 1, "irnn": 1, "gru": 3, "lstm": 4}  # blocks of H columns in the kernels
PARTS = {"rnn": 1, "irnn": 1, "gru": 1, "lstm": 2}  # arrays [B, H] of the carry: the state, and the lstm's memory
# Form and unrolling by backend; on the CPU from `scripts/bench.py cells` (outputs/reference/cells.md). On a GPU nothing
# was measured: there one large product before the scan is the usual form (Appleyard et al. 2016).
DEFAULTS: dict[str, tuple[Literal["step", "hoisted"], int]] = {"cpu": ("step", 1), "gpu": ("hoisted", 1)}

Carry = tuple[jax.Array, ...]


class Cell(nn.Module):
    """One recurrent layer's step. The state is the first part of the carry.

    rnn: h' = tanh(a); irnn: h' = relu(a) with U = I and a small W at first (Le et al. 2015), a = W x + U h + b;
    gru: r, u = sigmoid(..), n = tanh(W x + b + r (U h + b_n)), h' = (1 - u) n + u h (Cho et al. 2014);
    lstm: i, f, o = sigmoid(..), c' = f c + i tanh(..), h' = o tanh(c') (Hochreiter & Schmidhuber 1997; Gers et al.
    2000).

    Kernels of all gates lie side by side: one product a step for the input, one for the state. Recurrent kernels are
    orthogonal, each gate of its own. With `layer_norm` both products are normalised (Ba et al. 2016).

    Attributes:
      kind: one of `CELLS`.
      hidden_dim: H.
      inputs: size of x; 0 for a cell that is driven by its state alone.
      layer_norm: normalise.
    """

    kind: str
    hidden_dim: int
    inputs: int
    layer_norm: bool

    def setup(self) -> None:
        width = GATES[self.kind] * self.hidden_dim
        if self.inputs:
            small = nn.initializers.normal(0.001) if self.kind == "irnn" else nn.initializers.lecun_normal()
            self.input_kernel = self.param("input_kernel", small, (self.inputs, width))
        start = _identity if self.kind == "irnn" else _orthogonal
        self.recurrent_kernel = self.param("recurrent_kernel", start, (self.hidden_dim, width))
        self.bias = self.param("bias", nn.initializers.zeros, (width,))
        if self.kind == "gru":
            self.recurrent_bias = self.param("recurrent_bias", nn.initializers.zeros, (self.hidden_dim,))
        if self.layer_norm:
            self.recurrent_scale = self.param("recurrent_scale", nn.initializers.ones, (width,))
            if self.inputs:
                self.input_scale = self.param("input_scale", nn.initializers.ones, (width,))

    def project(self, x: Float[Array, "*B D"] | None) -> Float[Array, "*B gates"]:
        """W x + b, [..., gates * H]; it does not depend on the state, so it may be computed for all times at once."""
        if x is None:
            return self.bias
        product = x @ self.input_kernel
        if self.layer_norm:
            product = _normalize(product, self.input_scale)
        return product + _like(self.bias, product)

    def __call__(self, carry: Carry, projected: Float[Array, "*B gates"]) -> Carry:
        """The carry after one step, from W x + b."""
        state = carry[0]
        if projected.ndim < state.ndim:
            projected = jnp.broadcast_to(projected, (*state.shape[:-1], *projected.shape))
        product = state @ self.recurrent_kernel
        if self.layer_norm:
            product = _normalize(product, self.recurrent_scale)
        size = self.hidden_dim
        if self.kind == "rnn":
            return (jnp.tanh(projected + product),)
        if self.kind == "irnn":
            return (jax.nn.relu(projected + product),)
        if self.kind == "gru":
            reset, update = jnp.split(jax.nn.sigmoid(projected[..., : 2 * size] + product[..., : 2 * size]), 2, axis=-1)
            recurrent = product[..., 2 * size :] + _like(self.recurrent_bias, state)
            new = jnp.tanh(projected[..., 2 * size :] + reset * recurrent)
            return ((1 - update) * new + update * state,)
        gates = projected + product
        # sigmoids side by side, so that they are one operation
        enter, forget, leave = jnp.split(jax.nn.sigmoid(gates[..., : 3 * size]), 3, axis=-1)
        memory = forget * carry[1] + enter * jnp.tanh(gates[..., 3 * size :])
        return leave * jnp.tanh(memory), memory


def _normalize(product: jax.Array, scale: jax.Array) -> jax.Array:
    centered = product - product.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-6)
    return centered / deviation * _like(scale, product)


def _like(row: jax.Array, array: jax.Array) -> jax.Array:
    """A row [D] with as many axes as an array [..., D]."""
    return row.reshape((1,) * (array.ndim - 1) + row.shape)


def _orthogonal(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "H gates"]:
    """An orthogonal block for every gate, side by side."""
    start = nn.initializers.orthogonal()
    blocks = [start(own, (shape[0], shape[0])) for own in jax.random.split(key, shape[1] // shape[0])]
    return jnp.concatenate(blocks, axis=1)


def _identity(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "H gates"]:
    del key
    return jnp.eye(*shape)


class Layers(NamedTuple):
    """A stack of recurrent layers, structure only; its functions take the parameters.

    With `bidirectional`, every layer has a second cell that runs from the end, and the next one sees both states.

    Attributes:
      kind, hidden_dim, layer_norm: of every cell.
      inputs: size of x; 0: driven by the first carry alone.
      layers: how many.
      bidirectional: whether.
      form: "step" computes W x inside the scan, "hoisted" before it for all times; "auto" as measured on this backend.
      unroll: steps per iteration of the scan; 0 as measured on this backend.
    """

    kind: str
    hidden_dim: int
    inputs: int
    layers: int
    layer_norm: bool
    bidirectional: bool = False
    form: str = "auto"
    unroll: int = 0

    @property
    def features(self) -> int:
        """Size of the states that come out."""
        return self.hidden_dim * (2 if self.bidirectional else 1)

    def cells(self) -> dict[str, Cell]:
        """Name -> cell, in order."""
        made: dict[str, Cell] = {}
        for index in range(self.layers):
            inputs = self.features if index else self.inputs
            made[f"layer_{index}"] = Cell(self.kind, self.hidden_dim, inputs, self.layer_norm)
            if self.bidirectional:
                made[f"layer_{index}_backward"] = Cell(self.kind, self.hidden_dim, inputs, self.layer_norm)
        return made

    def init(self, key: Key[Array, ""], forget_bias: Any) -> dict[str, Any]:
        """Fresh parameters; `forget_bias` is where an lstm's forget gates start (Jozefowicz et al. 2015: 1)."""
        params: dict[str, Any] = {}
        for (name, cell), own in zip(self.cells().items(), jax.random.split(key, len(self.cells())), strict=True):
            x = jnp.zeros((1, cell.inputs)) if cell.inputs else None
            start = lambda cell, x: cell(self.rest(1)[0], cell.project(x))
            params[name] = cell.init(own, x, method=start)["params"]
            if self.kind == "lstm":
                size = self.hidden_dim
                params[name]["bias"] = params[name]["bias"].at[size : 2 * size].set(forget_bias)
        return params

    def rest(self, rows: int) -> list[Carry]:
        """The carry of every cell before the first step: zeros [B, H]."""
        count = self.layers * (2 if self.bidirectional else 1)
        return [tuple(jnp.zeros((rows, self.hidden_dim)) for _ in range(PARTS[self.kind])) for _ in range(count)]

    def step(self, params: Any, carries: list[Carry], x: Float[Array, "B D"] | None) -> list[Carry]:
        """All layers one step on, of a stack that runs forwards; the last one's state is `carries[-1][0]`."""
        after: list[Carry] = []
        for (name, cell), carry in zip(self.cells().items(), carries, strict=True):
            projected = cell.apply({"params": params[name]}, x, method="project")
            carry = cell.apply({"params": params[name]}, carry, projected)
            after.append(carry)  # type: ignore[arg-type]
            x = carry[0]  # type: ignore[index]
        return after

    def scan(
        self,
        params: Any,
        x: Float[Array, "B T D"] | None,
        *,
        steps: int,
        valid: Bool[Array, "B T"] | None = None,
        carries: list[Carry] | None = None,
        rows: int = 0,
        nudge: Float[Array, "B T H"] | None = None,
    ) -> tuple[Float[Array, "B T features"], list[Carry]]:
        """States of the last layer at all times, and the carries at the end.

        Args:
          x: inputs [B, T, D], or None for a stack without inputs; then `rows` is B.
          steps: T.
          valid: False for padding, after which the carry stays as it is; None: everything is valid.
          carries: before the first step; None: at rest.
          nudge: added to the state of the last forward cell at every step (gradients with respect to states).
        """
        rows = rows if x is None else x.shape[0]
        carries = self.rest(rows) if carries is None else carries
        masks = None if valid is None else valid.T[..., None]
        inputs = None if x is None else jnp.swapaxes(x, 0, 1)
        ends: list[Carry] = []
        states: list[jax.Array] = []
        cells = list(self.cells().items())
        per_layer = 2 if self.bidirectional else 1
        for number, (name, cell) in enumerate(cells):
            last = number == len(cells) - per_layer
            pushes = jnp.swapaxes(nudge, 0, 1) if nudge is not None and last else None
            out, end = self._layer(
                cell, params[name], inputs, masks, carries[number], steps, pushes, name.endswith("backward")
            )
            states.append(out)
            ends.append(end)
            if len(states) == per_layer:
                inputs, states = (states[0] if per_layer == 1 else jnp.concatenate(states, -1)), []
        assert inputs is not None
        return jnp.swapaxes(inputs, 0, 1), ends

    def _layer(
        self,
        cell: Cell,
        params: Any,
        inputs: jax.Array | None,
        masks: jax.Array | None,
        carry: Carry,
        steps: int,
        pushes: jax.Array | None,
        reverse: bool,
    ) -> tuple[jax.Array, Carry]:
        form, unroll = DEFAULTS.get(jax.default_backend(), DEFAULTS["gpu"])
        form = form if self.form == "auto" else self.form
        project: Callable[[Any], Any] = functools.partial(cell.apply, {"params": params}, method="project")
        if form == "hoisted" and inputs is not None:
            inputs = project(inputs)  # type: ignore[assignment]

        def step(carry: Carry, at: tuple[Any, Any, Any]) -> tuple[Carry, jax.Array]:
            x, mask, push = at
            projected = x if form == "hoisted" and x is not None else project(x)
            new: Any = cell.apply({"params": params}, carry, projected)
            if push is not None:
                new = (new[0] + push, *new[1:])
            if mask is not None:
                new = tuple(jnp.where(mask, now, before) for now, before in zip(new, carry, strict=True))
            return new, new[0]

        end, states = jax.lax.scan(
            step, carry, (inputs, masks, pushes), length=steps, reverse=reverse, unroll=self.unroll or unroll
        )
        return states, end


def valid_steps(length: Int[Array, " B"] | None, steps: int) -> Bool[Array, "B T"] | None:
    """True for the time steps before `length`, [B, T]; None where every row is full."""
    return None if length is None else jnp.arange(steps)[None] < length[:, None]


def flip(x: Shaped[Array, "B T C"], length: Int[Array, " B"] | None) -> Shaped[Array, "B T C"]:
    """Every row backwards in time within its length; padding stays behind."""
    if length is None:
        return jnp.flip(x, axis=1)
    times = jnp.arange(x.shape[1])[None]
    times = jnp.where(times < length[:, None], length[:, None] - 1 - times, times)
    return jnp.take_along_axis(x, times[..., None], axis=1)


def summarize(
    states: Float[Array, "B T features"],
    last: Float[Array, "B features"],
    valid: Bool[Array, "B T"] | None,
    how: str,
) -> Float[Array, "B features"]:
    """States of all times as one vector: the last, the mean or the maximum over valid times."""
    if how == "last":
        return last
    if how == "mean":
        if valid is None:
            return states.mean(1)
        count = jnp.maximum(valid.sum(1), 1)[:, None]
        return jnp.where(valid[..., None], states, 0.0).sum(1) / count
    return (states if valid is None else jnp.where(valid[..., None], states, -jnp.inf)).max(1)
