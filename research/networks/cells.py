"""The recurrent cell as a Linen module."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.networks.earlier import GRU_GATES

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
    def __call__(self, carry: Carry | None, x: Float[Array, "B D"], sums: list[jax.Array] | None = None) -> Any:
        """The next carry, and the state [B, H].

        An input that is the same at all steps is multiplied once: without a carry, the result is W x + b of every gate,
        [B, H] each, which the steps then get as `sums`. (A Linen module has one compact method, so this is not another
        one.)
        """
        names, _ = KERNELS[self.kind]
        if sums is None:
            sums = self._entering(x)
        if carry is None:
            return sums
        state, zeros, size = carry[0], nn.initializers.zeros, self.hidden_dim
        start = _identity if self.kind == "irnn" else _orthogonal
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
                after = _lstm(sums[0] + products[0], carry[1])
        pushed = self.perturb("state", after[0])
        return (pushed, *after[1:]), pushed

    def _entering(self, x: Float[Array, "B D"]) -> list[jax.Array]:
        """W x + b of every gate; b alone for an input of size 0."""
        names, side_by_side = KERNELS[self.kind]
        width = side_by_side * self.hidden_dim
        biases = [self.param(f"bias{end}", nn.initializers.zeros, (width,))[None] for end in names]
        if not x.shape[-1]:
            return biases
        small = nn.initializers.normal(0.001) if self.kind == "irnn" else nn.initializers.lecun_normal()
        entering = self._normalized("input", [self._product(x, f"input_kernel{end}", small) for end in names])
        return [product + bias for product, bias in zip(entering, biases, strict=True)]

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
    def initialize_carry(self, rng: Key[Array, ""], input_shape: tuple[Any, ...]) -> Carry:
        """Zeros [B, H]."""
        del rng
        return tuple(jnp.zeros((*input_shape[:-1], self.hidden_dim)) for _ in range(PARTS[self.kind]))

    @property
    def num_feature_axes(self) -> int:
        """Axes of x that are no batch."""
        return 1


class PaddedCell(nn.RNNCellBase):
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
    def initialize_carry(self, rng: Key[Array, ""], input_shape: tuple[Any, ...]) -> Carry:
        """The first carry of the cell."""
        return self.cell.initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self) -> int:
        """Axes of x that are no batch."""
        return 1


@functools.partial(jax.checkpoint, prevent_cse=False)
def _lstm(gates: Float[Array, "B gates"], memory: Float[Array, "B H"]) -> Carry:
    """The carry after a step. The backward pass computes it again, since reading it from memory takes longer."""
    size = memory.shape[-1]
    # One operation computes all three sigmoids.
    enter, forget, leave = jnp.split(jax.nn.sigmoid(gates[:, : 3 * size]), 3, axis=-1)
    memory = forget * memory + enter * jnp.tanh(gates[:, 3 * size :])
    return leave * jnp.tanh(memory), memory


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


class SideBySide(nn.Module):
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
