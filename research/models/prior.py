"""Priors of a VAE's code: standard normal, a mixture of posteriors, a second stochastic layer."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.data.examples import Examples
from research.distributions import normal_log_prob
from research.networks.dense import DenseStack
from research.ranges import Size
from research.tree import ConfigError, spec


@spec
class Prior:
    """The settings of p(z), mixed into a VAE with `posterior`.

    normal: N(0, 1). vamp: p(z) = 1/K sum_k q(z | u_k) with learned pseudo-inputs u_k, which start at training rows and
    are not held within the range of the data (Tomczak & Welling 2018 clip them). hierarchical: p(z) is the marginal of
    p(z | t) p(t), t ~ N(0, 1), a second stochastic layer (Burda et al. 2016); its density is the one-sample bound
    log p(z | t) + log p(t) - log q(t | z), t ~ q(t | z), so that weights of many samples stay those of the whole model.

    Attributes:
      prior: which of them.
      pseudo_inputs: K of vamp.
      top_dim: size of t.
      top_hidden_dims: widths of the tanh layers of q(t | z); p(z | t) has them in reverse.
    """

    prior: Literal["normal", "vamp", "hierarchical"]
    pseudo_inputs: Size
    top_dim: Size
    top_hidden_dims: tuple[Size, ...]

    def validate_prior(self: Any) -> None:
        if self.prior == "vamp" and self.conditional:
            remedy = "pseudo-inputs have no labels, which a conditional encoder needs; set model.conditional=false"
            raise ConfigError("prior", self.prior, remedy)
        if self.prior != "normal" and self.free_bits is not None:
            remedy = "the KL to this prior is no sum over dimensions; set model.prior=normal or {key}=null"
            raise ConfigError("free_bits", self.free_bits, remedy)

    def check_rows(self: Any, rows: Examples) -> None:
        """Refuse training rows that pseudo-inputs cannot start at.

        Raises:
          ConfigError: rows are padded or have missing values.
        """
        if self.prior == "vamp" and (rows.length is not None or rows.observed is not None):
            remedy = "pseudo-inputs have neither padding nor gaps, which these data have; set {key}=normal"
            raise ConfigError("prior", self.prior, remedy)

    @property
    def noise_size(self: Any) -> int:
        """Standard normal numbers that one code of one example takes: those of z, then those of t."""
        return self.latent_dim + (self.top_dim if self.prior == "hierarchical" else 0)

    def _top(self: Any, encoder: bool) -> DenseStack:
        dims = self.top_hidden_dims if encoder else self.top_hidden_dims[::-1]
        outputs = 2 * (self.top_dim if encoder else self.latent_dim)
        return DenseStack(dims, outputs, "tanh", False, False, "glorot_uniform")

    def fresh_prior(self: Any, key: Key[Array, ""]) -> dict[str, Any]:
        """Fresh parameters {"prior"} that know nothing of the data; none of a standard normal."""
        match self.prior:
            case "vamp":
                shape = (self.pseudo_inputs, *self.feature_shape)
                return {"prior": {"pseudo_inputs": jax.random.normal(key, shape)}}
            case "hierarchical":
                up, down = jax.random.split(key)
                encoder = self._top(True).init(up, jnp.zeros((1, self.latent_dim)))["params"]
                decoder = self._top(False).init(down, jnp.zeros((1, self.top_dim)))["params"]
                return {"prior": {"encoder": encoder, "decoder": decoder}}
            case _:
                return {}

    def informed_prior(self: Any, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Parameters in place of fresh ones where the training rows say more: pseudo-inputs that are such rows."""
        if self.prior != "vamp":
            return {}
        rows = jax.random.choice(key, len(train), (self.pseudo_inputs,), replace=len(train) < self.pseudo_inputs)
        return {"prior": {"pseudo_inputs": jnp.asarray(train.take(rows).x, jnp.float32)}}

    def prior_log_prob(
        self: Any, params: Any, z: Float[Array, "k B L"], noise: Float[Array, "k B extra"]
    ) -> Float[Array, "k B"]:
        """log p(z) in nats, [k, B]; of the hierarchical prior the bound above, with noise [k, B, top_dim]."""
        match self.prior:
            case "vamp":
                pseudo = Examples(x=params["prior"]["pseudo_inputs"])
                density = mixture_log_prob(z, *self.posterior(params, pseudo))
                return density - jnp.log(self.pseudo_inputs)
            case "hierarchical":
                mean, log_variance = self._apply_top(params, z, True)
                top = mean + jnp.exp(0.5 * log_variance) * noise
                below = normal_log_prob(z, *self._apply_top(params, top, False)).sum(-1)
                return below + (normal_log_prob(top) - normal_log_prob(top, mean, log_variance)).sum(-1)
            case _:
                return normal_log_prob(z).sum(-1)

    def prior_sample(self: Any, params: Any, key: Key[Array, ""], number: int) -> Float[Array, "{number} L"]:
        """Codes from p(z), [number, L]."""
        if self.prior == "normal":
            return jax.random.normal(key, (number, self.latent_dim))
        choice_key, code_key = jax.random.split(key)
        if self.prior == "vamp":
            pseudo = Examples(x=params["prior"]["pseudo_inputs"])
            chosen = jax.random.randint(choice_key, (number,), 0, self.pseudo_inputs)
            mean, log_variance = (values[chosen] for values in self.posterior(params, pseudo))
        else:
            top = jax.random.normal(choice_key, (number, self.top_dim))
            mean, log_variance = self._apply_top(params, top, False)
        return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(code_key, mean.shape)

    def _apply_top(
        self, params: Any, x: Float[Array, "*B D"], encoder: bool
    ) -> tuple[Float[Array, "*B outputs"], Float[Array, "*B outputs"]]:
        """Mean and log-variance of q(t | z) (encoder) or of p(z | t)."""
        part = params["prior"]["encoder" if encoder else "decoder"]
        outputs: Any = self._top(encoder).apply({"params": part}, x)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        return mean, log_variance


def mixture_log_prob(
    z: Float[Array, "k B L"], mean: Float[Array, "K L"], log_variance: Float[Array, "K L"]
) -> Float[Array, "k B"]:
    """log sum_k N(z; mean_k, exp(log_variance_k)), [k, B] nats.

    One dimension after another, since an array [k, B, K, L] would not fit in memory, also not for the gradient; and by
    differences before squares: matrix products of the parts lose whole nats where variances are small.
    """

    @jax.checkpoint
    def step(squares: Float[Array, "k B K"], dimension: Any) -> tuple[Float[Array, "k B K"], None]:
        own, center, spread = dimension
        away = jnp.square(own[..., None] - center[None, None]) * jnp.exp(-spread)[None, None]
        return squares + away + spread[None, None], None

    start = jnp.full((*z.shape[:2], len(mean)), mean.shape[1] * jnp.log(2 * jnp.pi))
    squares, _ = jax.lax.scan(step, start, (jnp.moveaxis(z, -1, 0), mean.T, log_variance.T))
    return jax.nn.logsumexp(-0.5 * squares, axis=-1)
