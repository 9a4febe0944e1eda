"""The KL divergence in the loss of a VAE: its weight, its ramp, free bits and a capacity."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.clock import Clock, ramp
from research.ranges import Epochs, NonNegative, Repeats
from research.tree import ConfigError, spec


@spec
class KL:
    """Settings of the KL's term in the loss of a VAE: beta w(t) KL, or gamma |KL - C(t)| with a capacity C.

    Attributes:
      beta: weight of the KL (Higgins et al. 2017).
      warmup: ramp w(t) from 0 to 1: linear, logistic (Bowman et al. 2016; half way at half of the ramp) or cyclical
        (Fu et al. 2019: `cycles` times over the whole training, each time half ramp and half 1). "none" is 1.
      warmup_epochs: length of the linear or logistic ramp, in epochs.
      cycles: of the cyclical ramp.
      free_bits: nats of a latent dimension below which its KL, averaged over the batch, is not penalised (Kingma et
        al. 2016); null: none.
      capacity: C at the end of its growth, in nats (Burgess et al. 2018); null: there is none.
      gamma: weight of the distance to the capacity.
      capacity_epochs: the capacity grows linearly from 0 over so many epochs.
    """

    beta: NonNegative
    warmup: Literal["none", "linear", "logistic", "cyclical"]
    warmup_epochs: Epochs
    cycles: Repeats
    free_bits: NonNegative | None
    capacity: NonNegative | None
    gamma: NonNegative
    capacity_epochs: Epochs

    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": ("beta", "free_bits", "capacity", "gamma"),
        "iwae_nats": ("beta",),
    }
    # Scores are computed as at the end of every ramp.
    unscored: ClassVar[tuple[str, ...]] = ("warmup_epochs", "capacity_epochs")

    def validate(self) -> None:
        if self.warmup in ("linear", "logistic") and self.warmup_epochs == 0:
            remedy = f"a {self.warmup} warm-up needs a length above 0 (or model.warmup=none)"
            raise ConfigError("warmup_epochs", 0, remedy)
        if self.free_bits is not None and self.capacity is not None:
            raise ConfigError("capacity", self.capacity, "free bits and a capacity exclude each other; set {key}=null")

    def weight(self, clock: Clock) -> Float[Array, ""]:
        """w(t)."""
        if self.warmup == "none":
            return jnp.ones(())
        if self.warmup == "cyclical":
            return jnp.minimum(2 * ((clock.fraction * self.cycles) % 1.0), 1.0)
        progress = ramp(clock.epoch, self.warmup_epochs)
        if self.warmup == "linear":
            return progress
        return jnp.where(progress >= 1, 1.0, jax.nn.sigmoid(10 * (progress - 0.5)))

    def growth(self, clock: Clock) -> Float[Array, ""]:
        """C(t) / C."""
        return ramp(clock.epoch, self.capacity_epochs)

    def added_to(
        self,
        reconstruction: Float[Array, "*B"],
        kl: Float[Array, "*B"],
        by_dimension: Float[Array, "*B L"] | None,
        weight: Any = 1.0,
        growth: Any = 1.0,
    ) -> Float[Array, "*B"]:
        """The reconstruction plus the KL's term, in nats.

        In training the arguments are means over the batch, because free bits and a capacity are of the batch. In a
        score they are those of every example.

        Args:
          reconstruction: -log p(x | z).
          kl: the whole KL.
          by_dimension: the KL of every latent dimension, if the prior makes it a sum over dimensions.
          weight: w(t); 1 is the end of the ramp.
          growth: C(t) / C; 1 is the end of the growth.
        """
        if self.capacity is not None:
            return reconstruction + self.gamma * jnp.abs(kl - self.capacity * growth)
        if self.free_bits is not None:
            assert by_dimension is not None
            kl = jnp.maximum(by_dimension, self.free_bits).sum(-1)
        return reconstruction + self.beta * weight * kl
