"""Vector-quantized autoencoder: discrete codes from a learned codebook."""

import math
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.clock import Clock
from research.data.examples import Examples
from research.distributions import Observation
from research.models.decoding import CODEBOOK_INIT
from research.models.dense_ae import Autoencoding, over_steps
from research.models.recurrent_ae import RecurrentAE
from research.networks.cells import valid_steps
from research.networks.dense import DenseNetworks
from research.optimizer import Optimizer, Players
from research.ranges import NonNegative, Range, Size
from research.tree import ConfigError, spec

ROWS = 4  # training rows for every entry of a codebook that starts at their codes


@spec
class Quantized(Autoencoding):
    """Autoencoder whose code consists of `groups` entries of one codebook (VQ-VAE: van den Oord et al. 2017), for any
    networks.

    The encoder's outputs [L] are cut into groups of L / groups numbers; each becomes its nearest entry e, with the
    straight-through gradient dL/de on the output u. loss = -log p(x | e) + |sg(u) - e|^2 + commitment |u - sg(e)|^2,
    sums over the code. Under the uniform prior over entries the KL is groups ln(entries) nats, at every valid step of a
    code at every step: a constant that the loss leaves out. Entries start at codes of training rows.

    Attributes:
      entries: K, size of the codebook.
      groups: entries in one code.
      commitment: weight of the last term.
      codebook: "gradient" trains entries by the second term. "average" replaces it by 1/2 sum_k |e_k - sg(mean of the
        batch's outputs that chose k)|^2, which under plain gradient descent at rate 1 - decay is a moving average
        (`optimizer=codebook`); the paper averages sums and counts apart.
    """

    entries: Annotated[int, Range(2, 1_000_000)]
    groups: Size
    commitment: NonNegative
    codebook: Literal["gradient", "average"]

    # the loss leaves out the KL, which entries and groups decide
    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("commitment", "entries", "groups", "code")}

    def validate(self: Any) -> None:
        super().validate()
        if self.latent_dim % self.groups:
            remedy = f"must divide model.latent_dim={self.latent_dim}: every group gets as many numbers"
            raise ConfigError("groups", self.groups, remedy)
        if self.penalty != "none":
            raise ConfigError("penalty", self.penalty, "discrete codes cannot follow N(0, 1); set model.penalty=none")
        if self.code_l2 is not None:
            raise ConfigError("code_l2", self.code_l2, "the codebook is trained to follow its codes; set {key}=null")

    def check_optimizer(self: Any, optimizer: Optimizer | Players) -> None:
        """Refuse an optimizer that makes no sense of the codebook's term.

        Raises:
          ConfigError: an average that is none, or a codebook that follows its gradient at the rate of an average.
        """
        player = optimizer.players.get("codebook") if isinstance(optimizer, Players) else None
        rate = player.numbers["learning_rate"] if player is not None and player.name == "sgd" else None
        if self.codebook == "average" and (rate is None or rate > 1):
            remedy = "a moving average needs plain descent at a rate of at most 1 (1 - decay); set optimizer=codebook"
            raise ConfigError("codebook", self.codebook, remedy)
        if self.codebook == "gradient" and rate is not None:
            remedy = "optimizer=codebook is for moving averages; set model.codebook=average, or optimizer=adam"
            raise ConfigError("codebook", self.codebook, remedy)

    @property
    def sample(self) -> Any:
        """`sample(params, key, number, label=None)` -> E[x | e] at entries drawn from the uniform prior."""
        return self._sample

    def _sample(
        self: Any, params: Any, key: Key[Array, ""], number: int, label: Int[Array, " number"] | None = None
    ) -> Float[Array, "{number} ..."]:
        steps = self.feature_shape[:1] if getattr(self, "code", "sequence") == "step" else ()
        chosen = jax.random.randint(key, (number, *steps, self.groups), 0, self.entries)
        return self.decode(params, self._look_up(params, jax.nn.one_hot(chosen, self.entries)), label)

    def fresh(self: Any, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters, with {"codebook": {"entries": [K, L / groups]}}."""
        shape = (self.entries, self.latent_dim // self.groups)
        entries = jax.random.normal(jax.random.fold_in(key, CODEBOOK_INIT), shape)
        return super().fresh(key) | {"codebook": {"entries": entries}}

    def init(self: Any, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Fresh parameters; entries are parts of codes of training rows, far apart, so that none is out of reach."""
        params = super().init(key, train)
        row_key, part_key, noise_key = jax.random.split(jax.random.fold_in(key, CODEBOOK_INIT), 3)
        rows = jax.random.choice(row_key, len(train), (min(ROWS * self.entries, len(train)),), replace=False)
        train = train.take(rows)
        parts = super().to_code(params, self.code_outputs(params, train))
        valid = valid_steps(train.length, parts.shape[1]) if parts.ndim == 3 else None
        there = jnp.ones(parts.shape[:-1], bool) if valid is None else valid
        there = jnp.broadcast_to(there[..., None], (*there.shape, self.groups)).reshape(-1)
        parts = parts.reshape(-1, self.latent_dim // self.groups)
        entries = spread_out(part_key, parts, self.entries, there)
        spread = (
            0.01 * jnp.std(parts, where=there[:, None]) + 1e-6
        )  # equal rows would make equal entries, of which one is never chosen
        entries = entries + spread * jax.random.normal(noise_key, entries.shape)
        return params | {"codebook": {"entries": entries}}

    def choices(self: Any, params: Any, outputs: Float[Array, "*B L"]) -> Int[Array, "*B groups"]:
        """Number of the nearest entry of every group, [..., groups]."""
        entries = params["codebook"]["entries"]
        parts = outputs.reshape(-1, entries.shape[1])
        # |u|^2 is the same for all entries
        distance = jnp.square(entries).sum(-1)[None] - 2 * parts @ entries.T
        return jnp.argmin(distance, axis=-1).reshape(*outputs.shape[:-1], self.groups)

    def assign(self, params: Any, batch: Examples) -> Int[Array, "B ..."]:
        """Entries that the codes of a batch are made of, [B, groups], or [B, T, groups] with a code at every step."""
        return self.choices(params, super().to_code(params, self.code_outputs(params, batch)))

    def _look_up(self: Any, params: Any, hot: Float[Array, "*B groups K"]) -> Float[Array, "*B L"]:
        # a product rather than a gather, which is slow under vmap
        found = hot @ params["codebook"]["entries"]
        return found.reshape(*found.shape[:-2], self.latent_dim)

    def to_code(self, params: Any, outputs: Float[Array, "*B L"]) -> Float[Array, "*B L"]:
        """Codes made of entries, with the straight-through gradient."""
        before = super().to_code(params, outputs)
        hot = jax.nn.one_hot(self.choices(params, before), self.entries)
        constant = jax.lax.stop_gradient
        return constant(self._look_up(params, hot)) + (before - constant(before))  # exactly the entries

    def code_terms(
        self: Any,
        params: Any,
        before: Float[Array, "B ..."],
        code: Float[Array, "B ..."],
        batch: Examples,
        key: Key[Array, ""],
        clock: Clock,
    ) -> tuple[Any, dict[str, Float[Array, ""]]]:
        """The last two terms of the loss, and how many entries the batch uses: exp of the entropy of its choices."""
        del code, key, clock
        constant = jax.lax.stop_gradient
        before = super().to_code(params, before)
        hot = jax.nn.one_hot(self.choices(params, before), self.entries)
        found = self._look_up(params, hot)
        away = over_steps(jnp.square(before - constant(found)).sum(-1), batch).mean()
        valid = valid_steps(batch.length, before.shape[1]) if before.ndim == 3 else None
        if valid is not None:  # padding chooses nothing
            hot = jnp.where(valid[..., None, None], hot, 0.0)
        hot = hot.reshape(-1, self.entries)
        count = hot.sum(0)
        if self.codebook == "gradient":
            toward = over_steps(jnp.square(constant(before) - found).sum(-1), batch).mean()
        else:
            parts = constant(before).reshape(-1, self.latent_dim // self.groups)
            mean = (hot.T @ parts) / jnp.maximum(count, 1)[:, None]
            apart = jnp.square(params["codebook"]["entries"] - mean).sum(-1)
            toward = 0.5 * jnp.where(count > 0, apart, 0.0).sum()
        share = count / jnp.maximum(count.sum(), 1)
        perplexity = jnp.exp(-(share * jnp.log(jnp.where(share > 0, share, 1.0))).sum())
        metrics = {"commitment": away, "codebook_perplexity": perplexity}
        return toward + self.commitment * away, metrics

    def evaluate(self: Any, params: Any, batch: Examples, keys: Key[Array, " B"]) -> dict[str, Float[Array, " B"]]:
        """Per example: reconstruction, the distance of outputs to entries, and ELBO under the uniform prior.

        The loss is that of `codebook=gradient`; a moving average is of a batch and not of an example.
        """
        metrics = super().evaluate(params, batch, keys)
        before = super().to_code(params, self.code_outputs(params, batch))
        found = self._look_up(params, jax.nn.one_hot(self.choices(params, before), self.entries))
        away = over_steps(jnp.square(before - found).sum(-1), batch)
        metrics |= {"loss": metrics["loss"] + (1 + self.commitment) * away, "commitment": away}
        if "reconstruction_nats" in metrics:
            one = jnp.full(before.shape[:-1], self.groups * math.log(self.entries))
            kl = over_steps(one, batch)
            metrics |= {"kl_nats": kl, "elbo_nats": -metrics["reconstruction_nats"] - kl}
        return metrics


@spec
class VQAE(Quantized, DenseNetworks, Observation):
    """Vector-quantized autoencoder with dense networks."""


@spec
class RecurrentVQAE(Quantized, RecurrentAE):
    """Vector-quantized autoencoder of sequences, with one code or with a code at every step."""


def spread_out(
    key: Key[Array, ""], points: Float[Array, "N D"], number: int, there: Bool[Array, " N"]
) -> Float[Array, "{number} D"]:
    """Points [number, D] of those that are there, each drawn in proportion to its squared distance from those before
    (k-means++; Arthur & Vassilvitskii 2007); where none is left that differs, any of them."""

    def step(distance: Float[Array, " N"], key: Key[Array, ""]) -> tuple[Float[Array, " N"], Float[Array, " D"]]:
        # the first one, and those after all that differ: from all alike
        far = jnp.where((jnp.max(distance, where=there, initial=0.0) > 0) & jnp.isfinite(distance), distance, 1.0)
        chosen = points[jax.random.categorical(key, jnp.log(jnp.where(there, far, 0.0)))]
        return jnp.minimum(distance, jnp.square(points - chosen[None]).sum(-1)), chosen

    return jax.lax.scan(step, jnp.full(len(points), jnp.inf), jax.random.split(key, number))[1]
