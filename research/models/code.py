"""The code of an autoencoder: the encoder's outputs with an activation, or entries of a codebook."""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.data.examples import Examples
from research.networks.names import activation, check_activation
from research.networks.steps import over_steps, valid_steps
from research.optimizer import Optimizer, Players
from research.ranges import NonNegative, Range, Size
from research.tree import ConfigError, inline, spec

ROWS = 4  # training rows whose codes a fresh codebook looks at, for every entry


@spec
class PlainCode:
    """The code is an activation of the encoder's outputs.

    Attributes:
      code_activation: one of `ACTIVATIONS`, or "linear".
    """

    code_activation: str

    depends: ClassVar[dict[str, tuple[str, ...]]] = {}

    def validate(self) -> None:
        check_activation("code_activation", self.code_activation)

    def continuous(self, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """f(outputs), of the encoder's outputs [B, L], or [B, T, L] with a code at every step."""
        return activation(self.code_activation)(outputs)

    def make(self, params: Any, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """Codes: f(outputs)."""
        return self.continuous(outputs)


@spec
class Codebook:
    """`groups` entries of one codebook (VQ-VAE: van den Oord et al. 2017).

    The encoder's outputs u [L] are cut into groups of L / groups numbers. Each group becomes its nearest entry e. The
    gradient passes straight through: u gets the gradient of e. With sg for a constant,
    loss = -log p(x | e) + |sg(u) - e|^2 + commitment |u - sg(e)|^2, summed over the code.

    Under the uniform prior over entries, the KL of a code is groups ln(entries) nats: a constant, which the loss leaves
    out. Entries start at codes of training rows.

    Attributes:
      plain: the outputs u, with their activation.
      entries: K, size of the codebook.
      groups: number of entries in one code.
      commitment: weight of the last term.
      codebook: "gradient" trains entries by the second term. "average" replaces that term by
        1/2 sum_k |e_k - sg(mean of the outputs in the batch that chose k)|^2. Plain gradient descent at a rate of
        1 - decay then makes a moving average (`optimizer=codebook`). The paper averages sums and counts separately.
    """

    plain: PlainCode = inline()
    entries: Annotated[int, Range(2, 1_000_000)]
    groups: Size
    commitment: NonNegative
    codebook: Literal["gradient", "average"]

    # The loss leaves out the KL, which depends on entries, groups and the number of codes in a sequence.
    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("commitment", "entries", "groups", "code")}

    def check(self, latent_dim: int) -> None:
        """Refuse groups that do not divide the code."""
        if latent_dim % self.groups:
            remedy = f"must divide model.latent_dim={latent_dim}: all groups have equally many numbers"
            raise ConfigError("groups", self.groups, remedy)

    def check_optimizer(self, optimizer: Optimizer | Players) -> None:
        """Refuse "average" without plain descent of the codebook, and "gradient" with it."""
        player = optimizer.players.get("codebook") if isinstance(optimizer, Players) else None
        rate = player.numbers["learning_rate"] if player is not None and player.name == "sgd" else None
        if self.codebook == "average" and (rate is None or rate > 1):
            remedy = "a moving average needs plain descent at a rate of at most 1 (1 - decay); set optimizer=codebook"
            raise ConfigError("codebook", self.codebook, remedy)
        if self.codebook == "gradient" and rate is not None:
            remedy = "optimizer=codebook is for moving averages; set model.codebook=average, or optimizer=adam"
            raise ConfigError("codebook", self.codebook, remedy)

    def init(self, key: Key[Array, ""], latent_dim: int) -> dict[str, Any]:
        """Fresh parameters {"codebook": {"entries": [K, L / groups]}}."""
        shape = (self.entries, latent_dim // self.groups)
        return {"codebook": {"entries": jax.random.normal(key, shape)}}

    def informed(
        self, key: Key[Array, ""], train: Examples, encode: Callable[[Examples], Float[Array, "N ..."]]
    ) -> dict[str, Any]:
        """Entries that start at parts of codes of training rows, far apart, so that codes reach every entry.

        Args:
          encode: gives the encoder's outputs of some rows, [N, L] or [N, T, L].
        """
        row_key, part_key, noise_key = jax.random.split(key, 3)
        number = min(ROWS * self.entries, len(train))
        rows = train.take(jax.random.choice(row_key, len(train), (number,), replace=False))
        outputs = encode(rows)
        parts = self.continuous(outputs)
        valid = valid_steps(rows.length, parts.shape[1]) if parts.ndim == 3 else None
        present = jnp.ones(parts.shape[:-1], bool) if valid is None else valid
        present = jnp.broadcast_to(present[..., None], (*present.shape, self.groups)).reshape(-1)
        parts = parts.reshape(-1, outputs.shape[-1] // self.groups)
        entries = spread_out(part_key, parts, self.entries, present)
        # Equal rows would make equal entries, all but one of which are never chosen.
        spread = 0.01 * jnp.std(parts, where=present[:, None]) + 1e-6
        return {"codebook": {"entries": entries + spread * jax.random.normal(noise_key, entries.shape)}}

    def continuous(self, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """u."""
        return self.plain.continuous(outputs)

    def choices(self, params: Any, u: Float[Array, "*B L"]) -> Int[Array, "*B groups"]:
        """Number of the nearest entry of every group, [..., groups]."""
        entries = params["codebook"]["entries"]
        parts = u.reshape(-1, entries.shape[1])
        # The distance leaves out |u|^2, which is the same for all entries.
        distance = jnp.square(entries).sum(-1)[None] - 2 * parts @ entries.T
        return jnp.argmin(distance, axis=-1).reshape(*u.shape[:-1], self.groups)

    def look_up(self, params: Any, hot: Float[Array, "*B groups K"]) -> Float[Array, "*B L"]:
        """Codes of one-hot choices, by a product: a gather is slow under vmap."""
        entries = hot @ params["codebook"]["entries"]
        return entries.reshape(*entries.shape[:-2], -1)

    def _nearest(self, params: Any, u: Float[Array, "*B L"]) -> tuple[Float[Array, "*B L"], Float[Array, "..."]]:
        """The entries e nearest to u, and the choices, one-hot."""
        hot = jax.nn.one_hot(self.choices(params, u), self.entries)
        return self.look_up(params, hot), hot

    def make(self, params: Any, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """Codes: the entries, with the straight-through gradient."""
        u, constant = self.continuous(outputs), jax.lax.stop_gradient
        return constant(self._nearest(params, u)[0]) + (u - constant(u))

    def terms(
        self, params: Any, outputs: Float[Array, "B ..."], batch: Examples
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The last two terms of the loss; the distance of u to e, and exp of the entropy of the batch's choices."""
        u, constant = self.continuous(outputs), jax.lax.stop_gradient
        entries, hot = self._nearest(params, u)
        away = over_steps(jnp.square(u - constant(entries)).sum(-1), batch.length).mean()
        valid = valid_steps(batch.length, u.shape[1]) if u.ndim == 3 else None
        if valid is not None:  # padding chooses nothing
            hot = jnp.where(valid[..., None, None], hot, 0.0)
        hot = hot.reshape(-1, self.entries)
        count = hot.sum(0)
        if self.codebook == "gradient":
            toward = over_steps(jnp.square(constant(u) - entries).sum(-1), batch.length).mean()
        else:
            parts = constant(u).reshape(-1, u.shape[-1] // self.groups)
            mean = (hot.T @ parts) / jnp.maximum(count, 1)[:, None]
            apart = jnp.square(params["codebook"]["entries"] - mean).sum(-1)
            toward = 0.5 * jnp.where(count > 0, apart, 0.0).sum()
        share = count / jnp.maximum(count.sum(), 1)
        perplexity = jnp.exp(-(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum())
        return toward + self.commitment * away, {"commitment": away, "codebook_perplexity": perplexity}

    def scores(
        self, params: Any, outputs: Float[Array, "B ..."], batch: Examples, reconstruction: dict[str, Any]
    ) -> dict[str, Float[Array, " B"]]:
        """The scores of the reconstruction, the distance of u to e, and the ELBO under the uniform prior.

        The loss is always that of `codebook=gradient`, because the term of a moving average is of a whole batch.
        """
        u = self.continuous(outputs)
        away = over_steps(jnp.square(u - self._nearest(params, u)[0]).sum(-1), batch.length)
        loss = reconstruction["loss"] + (1 + self.commitment) * away
        scores = reconstruction | {"loss": loss, "commitment": away}
        if "reconstruction_nats" in scores:
            kl = over_steps(jnp.full(u.shape[:-1], self.groups * math.log(self.entries)), batch.length)
            scores |= {"kl_nats": kl, "elbo_nats": -scores["reconstruction_nats"] - kl}
        return scores

    def sample(self, params: Any, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape L"]:
        """Codes [*shape, L] of entries drawn from the uniform prior."""
        chosen = jax.random.randint(key, (*shape, self.groups), 0, self.entries)
        return self.look_up(params, jax.nn.one_hot(chosen, self.entries))


def spread_out(
    key: Key[Array, ""], points: Float[Array, "N D"], number: int, present: Bool[Array, " N"]
) -> Float[Array, "{number} D"]:
    """A choice of points [number, D] that are `present`, by k-means++ (Arthur & Vassilvitskii 2007).

    The probability of a point is proportional to its squared distance from the points that are chosen already. When no
    other point is left, all points have the same probability.
    """

    def step(distance: Float[Array, " N"], key: Key[Array, ""]) -> tuple[Float[Array, " N"], Float[Array, " D"]]:
        far = jnp.where((jnp.max(distance, where=present, initial=0.0) > 0) & jnp.isfinite(distance), distance, 1.0)
        chosen = points[jax.random.categorical(key, jnp.log(jnp.where(present, far, 0.0)))]
        return jnp.minimum(distance, jnp.square(points - chosen[None]).sum(-1)), chosen

    return jax.lax.scan(step, jnp.full(len(points), jnp.inf), jax.random.split(key, number))[1]
