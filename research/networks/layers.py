"""Recurrent layers over time as a Linen module (`Layers`), and their settings (`RecurrentLayers`)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.networks.cells import CELLS, PARTS, Carries, Carry, Cell, PaddedCell, SideBySide
from research.networks.earlier import gates_apart
from research.networks.names import check_name
from research.networks.steps import summarize, valid_steps
from research.ranges import Finite, Range, Size
from research.tree import ConfigError, spec


def cell_names(layers: int, bidirectional: bool) -> list[str]:
    """Names of the cells of `Layers`: 0, 0_backward, 1, ... The parameters of cell 0 are called `layer_0`."""
    ways = ("", "_backward") if bidirectional else ("",)
    return [f"{number}{way}" for number in range(layers) for way in ways]


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
        names = cell_names(self.layers, self.bidirectional)
        self.layer = {name: Cell(self.kind, self.hidden_dim, self.layer_norm) for name in names}
        self.drop = nn.Dropout(self.dropout, broadcast_dims=(1,))

    @property
    def features(self) -> int:
        """Size of the states of the last layer."""
        return self.hidden_dim * (2 if self.bidirectional else 1)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"] | Float[Array, "B D"],
        length: Int[Array, " B"] | None = None,
        carries: Carries | None = None,
        training: bool = False,
        steps: int | None = None,
    ) -> tuple[Float[Array, "B T features"], Carries]:
        """States at all steps, and the carries after the last step (none of bidirectional layers).

        States after `length` steps of a row have no meaning.

        Args:
          x: the input of every step; with `steps` one input [B, D] for all T steps, of layers that run forwards from
            `carries`.
        """
        ends: list[Carry] = []
        valid = valid_steps(length, x.shape[1]) if self.kind == "irnn" and steps is None else None
        over_time = functools.partial(self._over_time, padded=valid is not None)
        for number in range(self.layers):
            if number == 0 and steps is not None:
                assert carries is not None
                after: Any = self._repeated(x, steps, carries[0])
                ends.append(after[0])
                x = after[1]
                x = self.drop(x, deterministic=not training) if self.dropout else x
                continue
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

    def _repeated(self, x: Float[Array, "B D"], steps: int, carry: Carry) -> tuple[Carry, Float[Array, "B T H"]]:
        """The first layer with the same input at all steps.

        Its product with the input is taken once, outside of the loop over time.
        """
        cell = self.layer["0"]
        sums: Any = cell(None, x)
        step = lambda cell, carry, _: cell(carry, x, sums)
        over_time = nn.scan(
            step,
            variable_broadcast="params",
            variable_axes={"perturbations": 1},
            split_rngs={"params": False},
            length=steps,
            unroll=self.unroll,
            out_axes=1,
        )
        return over_time(cell, carry, None)

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

    def _over_time(self, cell: Cell, padded: bool) -> nn.RNN:
        return nn.RNN(PaddedCell(cell) if padded else cell, unroll=self.unroll, variable_axes={"perturbations": 1})

    def step(self, carries: Carries, x: Float[Array, "B D"], training: bool = False) -> tuple[Carries, jax.Array]:
        """One step of layers that run forwards: the carries, and the state of the last layer [B, H]."""
        after: list[Carry] = []
        for number, carry in enumerate(carries):
            carry, x = self.layer[f"{number}"](carry, x)
            after.append(carry)
            x = self.drop(x[:, None], deterministic=not training)[:, 0] if self.dropout else x
        return tuple(after), x

    @nn.nowrap
    def rest(self, rows: Any) -> Carries:
        """The carries before the first step: zeros. The number of rows may be a symbol of `jax.export`."""
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
    unscored: ClassVar[tuple[str, ...]] = ("forget_bias",)
    retired: ClassVar[dict[str, Any]] = {"form": "auto"}  # the product with the input is computed inside the scan

    def validate(self) -> None:
        check_name("cell", self.cell, CELLS)

    def resized(self, width: int) -> Self:
        """The same layers with that many units."""
        return dataclasses.replace(self, hidden_dim=width)

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

    def fresh(
        self, module: nn.Module, keys: Mapping[str, Key[Array, ""]], *inputs: Any, **initialisers: Any
    ) -> dict[str, Any]:
        """Fresh parameters of a module with these `layers`. Every part is drawn with a key of its own.

        So a seed gives the same numbers however the modules are nested. With Linen's own keys it would not.

        Args:
          keys: name of a parameter, of a linear layer or of `layers` -> its key; others may be there too.
          inputs: arguments of the module, for the shapes.
          initialisers: of parameters and kernels by name; for others it is lecun_normal. Cells have their own.
        """
        init = functools.partial(module.init, mutable=["params"])
        shapes: Any = jax.eval_shape(lambda key: init(key, *inputs), jax.random.key(0))["params"]
        params: dict[str, Any] = {}
        for name, shape in shapes.items():
            key, start = keys[name], initialisers.get(name, nn.initializers.lecun_normal())
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
        names = [f"layer_{name}" for name in cell_names(self.layers, True) if f"layer_{name}" in shapes]
        for name, cell_key in zip(names, jax.random.split(key, len(names)), strict=True):
            kernels = [shape for part, shape in shapes[name].items() if part.startswith("input_kernel")]
            inputs = kernels[0].shape[0] if kernels else 0
            params[name] = gates_apart(
                SideBySide(self.cell, self.hidden_dim, self.layer_norm, inputs).init(cell_key)["params"]
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
