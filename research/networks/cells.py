"""Recurrent cells, and stacks of them over time, as Linen modules."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from research.networks.earlier import GRU_GATES, gates_apart
from research.networks.names import check_name
from research.ranges import Finite, Range, Size
from research.tree import ConfigError, spec

CELLS = ("rnn", "irnn", "gru", "lstm")
# Kind of cell -> endings of the names of its kernels, and number of gates side by side in each kernel (see `Cell`).
KERNELS: dict[str, tuple[tuple[str, ...], int]] = {
    **dict.fromkeys(("rnn", "irnn"), (("",), 1)),
    "gru": (GRU_GATES, 1),
    "lstm": (("",), 4),
}
PARTS = {"rnn": 1, "irnn": 1, "gru": 1, "lstm": 2}  # arrays [B, H] in the carry: the state, and the memory of an lstm

Carry = tuple[jax.Array, ...]  # the carry of one cell; its first array is the state
Carries = tuple[Carry, ...]  # the carries of all layers
Draw = tuple[jax.Array, Any]  # a key and an initialiser


class Cell(nn.RNNCellBase):
    """One recurrent layer's step, for `nn.RNN`: (carry, x [B, D]) -> (carry, state [B, H]).

    rnn: h' = tanh(a); irnn: h' = relu(a) with U = I and a small W at first (Le et al. 2015), a = W x + U h + b;
    gru: r, u = sigmoid(..), n = tanh(W x + b + r (U h + b_n)), h' = (1 - u) n + u h (Cho et al. 2014);
    lstm: i, f, o = sigmoid(..), c' = f c + i tanh(..), h' = o tanh(c') (Hochreiter & Schmidhuber 1997; Gers et al.
    2000).

    These are the formulas of Linen's SimpleCell, GRUCell and LSTMCell. This cell also has irnn and `layer_norm`, which
    normalises both products (Ba et al. 2016), and it can do without an input: one of size 0 has no kernel. The
    recurrent kernel of every gate starts as an orthogonal matrix.

    On two CPU cores this cell is 1.01 times as fast as SimpleCell at 100 steps and at 8, 1.01 and 1.13 times as
    GRUCell, .98 and 1.03 times as OptimizedLSTMCell (`scripts/bench.py cells`: gradients, hidden 64, batch 64). A gru
    has a kernel for each gate. With its kernels side by side, as in an lstm, it would take 1.2 and 1.1 times as long.

    The collection `perturbations` holds additions to the states, `state` [B, H] of a step. A gradient with respect to
    them is the gradient with respect to the states.

    Attributes:
      kind: one of `CELLS`.
      hidden_dim: H.
      layer_norm: normalise.
    """

    kind: str
    hidden_dim: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, carry: Carry, x: Float[Array, "B D"]) -> tuple[Carry, Float[Array, "B H"]]:
        state, zeros = carry[0], nn.initializers.zeros
        names, side_by_side = KERNELS[self.kind]
        size, width = self.hidden_dim, side_by_side * self.hidden_dim
        start = _identity if self.kind == "irnn" else _orthogonal
        biases = [self.param(f"bias{end}", zeros, (width,))[None] for end in names]
        sums = biases
        if x.shape[-1]:
            small = nn.initializers.normal(0.001) if self.kind == "irnn" else nn.initializers.lecun_normal()
            entering = self._normalized("input", [self._product(x, f"input_kernel{end}", small) for end in names])
            sums = [product + bias for product, bias in zip(entering, biases, strict=True)]
        again = [self._product(state, f"recurrent_kernel{end}", start) for end in names]
        products = self._normalized("recurrent", again)
        match self.kind:
            case "rnn":
                after: Carry = (jnp.tanh(sums[0] + products[0]),)
            case "irnn":
                after = (jax.nn.relu(sums[0] + products[0]),)
            case "gru":
                of_new = self.param("recurrent_bias", zeros, (size,))[None]
                reset, update = jax.nn.sigmoid(sums[0] + products[0]), jax.nn.sigmoid(sums[1] + products[1])
                new = jnp.tanh(sums[2] + reset * (products[2] + of_new))
                after = ((1 - update) * new + update * state,)
            case _:
                gates = sums[0] + products[0]
                # One operation computes all three sigmoids.
                enter, forget, leave = jnp.split(jax.nn.sigmoid(gates[:, : 3 * size]), 3, axis=-1)
                memory = forget * carry[1] + enter * jnp.tanh(gates[:, 3 * size :])
                after = (leave * jnp.tanh(memory), memory)
        pushed = self.perturb("state", after[0])
        return (pushed, *after[1:]), pushed

    def _product(self, x: Float[Array, "B D"], name: str, start: Any) -> Float[Array, "B gates"]:
        return x @ self.param(name, start, (x.shape[-1], KERNELS[self.kind][1] * self.hidden_dim))

    def _normalized(self, name: str, products: list[jax.Array]) -> list[jax.Array]:
        """The products of all gates; `layer_norm` normalises them together."""
        if not self.layer_norm:
            return products
        whole = jnp.concatenate(products, -1)
        scale = self.param(f"{name}_scale", nn.initializers.ones, (whole.shape[-1],))
        return jnp.split(_normalize(whole, scale), len(products), axis=-1)

    @nn.nowrap
    def initialize_carry(self, rng: Key[Array, ""], input_shape: tuple[int, ...]) -> Carry:
        """Zeros [B, H]."""
        del rng
        return tuple(jnp.zeros((*input_shape[:-1], self.hidden_dim)) for _ in range(PARTS[self.kind]))

    @property
    def num_feature_axes(self) -> int:
        """Axes of x that are no batch."""
        return 1


class Held(nn.RNNCellBase):
    """A cell that keeps its carry in padding, where the last column of x [B, D + 1] is 0; it is 1 before.

    An irnn needs it, because its states may grow without bound: a gradient of 0 with respect to an infinite state would
    make the gradient of a kernel NaN.
    """

    cell: Cell

    def __call__(self, carry: Carry, x: Float[Array, "B inputs"]) -> tuple[Carry, Float[Array, "B H"]]:
        after, _ = self.cell(carry, x[:, :-1])
        kept = tuple(jnp.where(x[:, -1:] > 0, new, old) for new, old in zip(after, carry, strict=True))
        return kept, kept[0]

    @nn.nowrap
    def initialize_carry(self, rng: Key[Array, ""], input_shape: tuple[int, ...]) -> Carry:
        """The first carry of the cell."""
        return self.cell.initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """Axes of x that are no batch."""
        return 1


def _normalize(product: Float[Array, "B gates"], scale: Float[Array, " gates"]) -> Float[Array, "B gates"]:
    centered = product - product.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-6)
    return centered / deviation * scale[None]


def _orthogonal(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "H gates"]:
    """An orthogonal block for every gate, side by side."""
    start = nn.initializers.orthogonal()
    blocks = [start(block_key, (shape[0], shape[0])) for block_key in jax.random.split(key, shape[1] // shape[0])]
    return jnp.concatenate(blocks, axis=1)


def _identity(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "H gates"]:
    del key
    return jnp.eye(*shape)


class _SideBySide(nn.Module):
    """Fresh parameters of a cell with the kernels of all gates side by side, as earlier versions drew them."""

    kind: str
    hidden_dim: int
    layer_norm: bool
    inputs: int

    @nn.compact
    def __call__(self) -> None:
        names, side_by_side = KERNELS[self.kind]
        width = len(names) * side_by_side * self.hidden_dim
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        if self.inputs:
            small = nn.initializers.normal(0.001) if self.kind == "irnn" else nn.initializers.lecun_normal()
            self.param("input_kernel", small, (self.inputs, width))
        self.param("recurrent_kernel", _identity if self.kind == "irnn" else _orthogonal, (self.hidden_dim, width))
        self.param("bias", zeros, (width,))
        if self.kind == "gru":
            self.param("recurrent_bias", zeros, (self.hidden_dim,))
        if self.layer_norm:
            self.param("recurrent_scale", ones, (width,))
            if self.inputs:
                self.param("input_scale", ones, (width,))


def layer_names(layers: int, bidirectional: bool) -> list[str]:
    """Names of the parameters of `Layers`: `layer_0`, `layer_0_backward`, `layer_1`, ..."""
    ways = ("", "_backward") if bidirectional else ("",)
    return [f"layer_{number}{way}" for number in range(layers) for way in ways]


class Layers(nn.Module):
    """Stacked recurrent layers: x [B, T, D] -> states of the last layer [B, T, features].

    With `bidirectional`, every layer has a second cell that runs from the end, and the next layer sees both states
    (Schuster & Paliwal 1997). `dropout` sets the same elements of a layer's states to zero at all steps (Gal &
    Ghahramani 2016), so padding changes no draw.
    """

    kind: str
    hidden_dim: int
    layers: int = 1
    layer_norm: bool = False
    bidirectional: bool = False
    unroll: int = 1
    dropout: float = 0.0

    def setup(self) -> None:
        names = [
            f"{number}{way}" for number in range(self.layers) for way in ("", "_backward")[: 1 + self.bidirectional]
        ]
        self.layer = {name: Cell(self.kind, self.hidden_dim, self.layer_norm) for name in names}
        self.drop = nn.Dropout(self.dropout, broadcast_dims=(1,))

    @property
    def features(self) -> int:
        """Size of the states of the last layer."""
        return self.hidden_dim * (2 if self.bidirectional else 1)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        length: Int[Array, " B"] | None = None,
        carries: Carries | None = None,
        training: bool = False,
    ) -> tuple[Float[Array, "B T features"], Carries]:
        """States at all steps, and the carries after the last step (none of bidirectional layers).

        States after `length` steps of a row have no meaning.
        """
        ends: list[Carry] = []
        valid = valid_steps(length, x.shape[1]) if self.kind == "irnn" else None
        over_time = functools.partial(self._over_time, held=valid is not None)
        for number in range(self.layers):
            forwards = over_time(self.layer[f"{number}"])
            if valid is not None:
                x = jnp.concatenate([x, valid[..., None]], axis=-1)
            if self.bidirectional:
                backwards = over_time(self.layer[f"{number}_backward"])
                both: Any = nn.Bidirectional(forwards, backwards)(x, seq_lengths=length)
                x = both
            else:
                start = None if carries is None else carries[number]
                end, x = forwards(x, initial_carry=start, return_carry=True)
                ends.append(end)
            if self.dropout:
                x = self.drop(x, deterministic=not training)
        return x, tuple(ends)

    @nn.nowrap
    def summary(
        self, x: Float[Array, "B T D"], how: str | None, length: Int[Array, " B"] | None = None, training: bool = False
    ) -> Float[Array, "B ..."]:
        """The states of all steps as one vector (`summarize`), [B, features]; None: all states, [B, T, features]."""
        states, carries = self(x, length, training=training)
        if how is None:
            return states
        if how == "last" and length is None and carries and not self.dropout:
            return carries[-1][0]  # the same state, and a cheaper gradient
        return summarize(states, length, how, self.hidden_dim if self.bidirectional else 0)

    def _over_time(self, cell: Cell, held: bool) -> nn.RNN:
        return nn.RNN(Held(cell) if held else cell, unroll=self.unroll, variable_axes={"perturbations": 1})

    def step(self, carries: Carries, x: Float[Array, "B D"], training: bool = False) -> tuple[Carries, jax.Array]:
        """One step of layers that run forwards: the carries, and the state of the last layer [B, H]."""
        after: list[Carry] = []
        for number, carry in enumerate(carries):
            carry, x = self.layer[f"{number}"](carry, x)
            after.append(carry)
            x = self.drop(x[:, None], deterministic=not training)[:, 0] if self.dropout else x
        return tuple(after), x

    @nn.nowrap
    def rest(self, rows: int) -> Carries:
        """The carries before the first step: zeros."""
        carry = tuple(jnp.zeros((rows, self.hidden_dim)) for _ in range(PARTS[self.kind]))
        return (carry,) * self.layers


@spec
class RecurrentLayers:
    """Settings of recurrent layers that read a sequence.

    Attributes:
      cell: one of `CELLS`.
      hidden_dim: H.
      layers: number of layers.
      bidirectional: every layer also reads from the end.
      layer_norm: normalise the two products of every cell.
      forget_bias: first bias of the forget gates of an lstm (Jozefowicz et al. 2015: 1).
      summary: the vector of a sequence is the last state, or the mean or the maximum of the states over time.
      unroll: steps in one iteration of the scan; 0 is one step.
    """

    cell: str
    hidden_dim: Size
    layers: Annotated[int, Range(1, 1_000)]
    bidirectional: bool
    layer_norm: bool
    forget_bias: Finite
    summary: Literal["last", "mean", "max"]
    unroll: Annotated[int, Range(0, 10_000)]

    depends: ClassVar[dict[str, tuple[str, ...]]] = {}
    retired: ClassVar[dict[str, Any]] = {"form": "auto"}  # the product with the input is computed inside the scan

    def validate(self) -> None:
        check_name("cell", self.cell, CELLS)

    def module(self, *, bidirectional: bool | None = None, dropout: float = 0.0) -> Layers:
        """The layers. `bidirectional` replaces the setting, for layers that must run forwards."""
        return Layers(
            self.cell,
            self.hidden_dim,
            self.layers,
            self.layer_norm,
            self.bidirectional if bidirectional is None else bidirectional,
            max(self.unroll, 1),
            dropout,
        )

    def fresh(self, module: nn.Module, draws: Mapping[str, Draw], *inputs: Any) -> dict[str, Any]:
        """Fresh parameters of a module with these `layers`. Every part is drawn with a key of its own.

        So a seed gives the same numbers however the modules are nested. With Linen's own keys it would not.

        Args:
          draws: name of a parameter or of a linear layer -> key, and initialiser of its kernel. For `layers` only the
            key counts, because cells have their own initialisers.
          inputs: arguments of the module, for the shapes.
        """
        init = functools.partial(module.init, mutable=["params"])
        shapes: Any = jax.eval_shape(lambda key: init(key, *inputs), jax.random.key(0))["params"]
        params: dict[str, Any] = {}
        for name, shape in shapes.items():
            key, start = draws[name]
            if name == "layers":
                params[name] = self._cells(shape, key)
            elif isinstance(shape, Mapping):
                zeros = jnp.zeros(shape["bias"].shape)
                params[name] = {"kernel": start(key, shape["kernel"].shape), "bias": zeros}
            else:
                params[name] = start(key, shape.shape)
        return params

    def _cells(self, shapes: Mapping[str, Any], key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters of all cells; the forget gates of an lstm start at `forget_bias`.

        The bias is a number that sweeps, so no initialiser can hold it: Linen modules are structure.
        """
        params: dict[str, Any] = {}
        names = [name for name in layer_names(self.layers, True) if name in shapes]
        for name, cell_key in zip(names, jax.random.split(key, len(names)), strict=True):
            kernels = [shape for part, shape in shapes[name].items() if part.startswith("input_kernel")]
            inputs = kernels[0].shape[0] if kernels else 0
            params[name] = gates_apart(
                _SideBySide(self.cell, self.hidden_dim, self.layer_norm, inputs).init(cell_key)["params"]
            )
            if self.cell == "lstm":
                gates = slice(self.hidden_dim, 2 * self.hidden_dim)
                params[name]["bias"] = params[name]["bias"].at[gates].set(self.forget_bias)
        return params

    def check_forwards(self) -> None:
        """Refuse layers that also read from the end: they cannot go step by step."""
        if self.bidirectional:
            remedy = (
                "a network that also reads backwards needs the whole sequence; train with model.bidirectional=false"
            )
            raise ConfigError("bidirectional", True, remedy)


# ---------------------------------------------------------------------------------------------------------- sequences


def valid_steps(length: Int[Array, " B"] | None, steps: int) -> Bool[Array, "B T"] | None:
    """True for the time steps before `length`, [B, T]; None if every row has its full length."""
    return None if length is None else jnp.arange(steps)[None] < length[:, None]


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
