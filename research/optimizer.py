"""Optimizers of optax as specs: their numbers sweep inside one compiled program.

`Optimizer` is one optimizer for all parameters, `Players` one for each top-level key of the parameters.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from research.coercion import coerce
from research.optax_names import NUMBERS, numbers_and_options
from research.ranges import Epochs, Positive, Range, Share
from research.tree import ConfigError, build, plain, spec

REST = "rest"  # the player of all parameters that no other player has
OWN_KEYS = ("name", "schedule", "final_factor", "warmup_epochs", "stages", "clip_norm", "clip_value")


@spec
class Optimizer:
    """An optax optimizer by name, with a schedule of the learning rate and clipping of gradients.

    In a config, every number of the optax function is a key beside the keys below, and sweeps as a leaf; its flags and
    integers are structure.

    The learning rate at step t is learning_rate * warmup(t) * schedule(t). With p in [0, 1] the share of the steps
    after the warm-up that are done and f = final_factor, schedule is
      constant: 1
      cosine: f + (1 - f) (1 + cos(pi p)) / 2
      linear: 1 - (1 - f) p
      exponential: f^p
      stages: n = `stages` stages whose lengths are as 1, 3, 9, ...; stage i = 0, 1, ... has the factor
        round(10^(1 - i / (n - 1)), 1) / 10 (Burda et al. 2016: rates from 1e-3 to 1e-4 for learning_rate=1e-3).

    Attributes:
      name: of an optax function that needs gradients only.
      numbers: its numbers, learning_rate among them.
      options: its flags and integers.
      schedule, final_factor, stages: above.
      warmup_epochs: length of a linear ramp of the rate, in epochs.
      clip_norm: largest global norm of the gradient; null clips nothing.
      clip_value: largest absolute value of an element of the gradient; null clips nothing.
    """

    name: str
    numbers: dict[str, float]
    options: tuple[Any, ...]
    schedule: Literal["constant", "cosine", "linear", "exponential", "stages"]
    final_factor: Share
    warmup_epochs: Epochs
    stages: Annotated[int, Range(2, 20)]
    clip_norm: Positive | None
    clip_value: Positive | None

    @staticmethod
    def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that a flat section of keys describes."""
        numbers, options = numbers_and_options(config.get("name"), config, OWN_KEYS)
        fields = {key: value for key, value in config.items() if key in OWN_KEYS}
        return fields | {"numbers": numbers, "options": options}

    def to_config(self) -> dict[str, Any]:
        """The flat section of keys."""
        return {key: getattr(self, key) for key in OWN_KEYS} | self.numbers | dict(self.options)

    def validate(self) -> None:
        if self.schedule == "exponential" and self.final_factor == 0:
            raise ConfigError("final_factor", 0, "an exponential schedule needs a final factor above 0")

    def build(self, epochs: Any, steps_per_epoch: int, period: Any = 1.0) -> optax.GradientTransformation:
        """The optax transformation. Call it inside a trace: the numbers, `epochs` and `period` may be traced.

        Args:
          epochs: length of the training.
          steps_per_epoch: training steps in an epoch.
          period: training steps from one update to the next; the schedule counts training steps.
        """
        numbers = dict(self.numbers)
        rate = numbers.pop("learning_rate")

        def learning_rate(step: jax.Array) -> jax.Array:
            return rate * self.rate_shape(step * period, epochs, steps_per_epoch)

        transformation = getattr(optax, self.name)(learning_rate=learning_rate, **numbers, **dict(self.options))
        clips = []
        if self.clip_value is not None:
            clips.append(optax.clip(self.clip_value))
        if self.clip_norm is not None:
            clips.append(optax.clip_by_global_norm(self.clip_norm))
        return optax.chain(*clips, transformation)

    def rate_shape(self, step: jax.Array, epochs: Any, steps_per_epoch: int) -> jax.Array:
        """warmup(t) * schedule(t) at a training step. `epochs` is an integer, also a traced one."""
        total = epochs * steps_per_epoch
        step = jnp.asarray(step, jnp.float32)
        warmup = jnp.asarray(self.warmup_epochs, jnp.float32) * steps_per_epoch
        started = jnp.where(step >= warmup, 1.0, (step + 1) / jnp.where(warmup > 0, warmup + 1, 1.0))
        progress = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
        final = jnp.asarray(self.final_factor, jnp.float32)
        match self.schedule:
            case "cosine":
                decay = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
            case "linear":
                decay = 1 - (1 - final) * progress
            case "exponential":
                decay = jnp.exp(progress * jnp.log(final))
            case "stages":
                last = self.stages - 1
                ends = jnp.array([(3.0**i - 1) / (3.0**self.stages - 1) for i in range(1, self.stages)])
                factors = jnp.array([round(10 ** (1 - i / last), 1) / 10 for i in range(self.stages)])
                # Counting the ends that are passed avoids a gather with a batched index, which is slow under vmap.
                stage = (progress >= ends).sum()
                decay = (factors * (jnp.arange(self.stages) == stage)).sum()
            case _:
                decay = jnp.ones(())
        return started * decay


@spec
class Players:
    """An optimizer for each player, that is, for each top-level key of the parameters (generator, discriminator).

    A player called `rest` has all keys that no other player has. In a config every player is a section with the keys of
    `Optimizer` and one more:
      period: the player moves once in so many steps (on average, if it is no whole number); 1 is every step. It sweeps.

    Clipping and weight decay act within each player. All players move at once, from one gradient.
    """

    players: dict[str, Optimizer]
    periods: dict[str, float]

    @staticmethod
    def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
        """The optimizers and the periods of the players' sections."""
        players, periods = {}, {}
        for name, section in config.items():
            if not isinstance(section, Mapping):
                raise ConfigError(name, section, "expected a section of keys: one for each player")
            if "period" not in section:
                raise ConfigError(f"{name}.period", None, "this key must be set (1: the player moves at every step)")
            players[name] = {key: value for key, value in section.items() if key != "period"}
            periods[name] = coerce(section["period"], NUMBERS["period"], f"{name}.period")
            build(players[name], Optimizer, key=name)  # its errors name the player
        return {"players": players, "periods": periods}

    def to_config(self) -> dict[str, Any]:
        """The players' sections."""
        return {name: {**plain(optimizer), "period": self.periods[name]} for name, optimizer in self.players.items()}

    def build(self, epochs: Any, steps_per_epoch: int) -> optax.GradientTransformation:
        """One transformation of the whole gradient (see `Optimizer.build`)."""

        def moves(period: Any) -> Callable[..., jax.Array]:
            return lambda step, **_: jnp.mod(step.astype(jnp.float32), period) < 1

        transformations: dict[Any, optax.GradientTransformation] = {
            name: optax.transforms.conditionally_mask(
                optimizer.build(epochs, steps_per_epoch, self.periods[name]), moves(self.periods[name])
            )
            for name, optimizer in self.players.items()
        }
        return optax.partition(transformations, self._labels)

    def unmatched(self, names: Any) -> list[str]:
        """Players that are no top-level key of the parameters; otherwise, without a `rest`, keys without a player."""
        named = {*self.players} - {REST}
        return sorted(named - {*names}) or ([] if REST in self.players else sorted({*names} - named))

    def _labels(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Top-level key of the parameters -> player."""
        if self.unmatched(params):
            remedy = f"the model's players are {', '.join(sorted(params))}"
            raise ConfigError("optimizer", ", ".join(sorted(self.players)), remedy)
        return {name: name if name in self.players else REST for name in params}
