"""Priors of the code of a VAE: standard normal, a mixture of posteriors, or a second stochastic layer."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.data.examples import Examples
from research.distributions import normal_log_prob
from research.networks.dense import DenseStack
from research.ranges import Size
from research.tree import ConfigError, spec

Gaussian = tuple[Float[Array, "B L"], Float[Array, "B L"]]  # mean and log-variance


@spec
class Prior:
    """Settings of p(z), a part of a VAE.

    By `kind`,
      normal: p(z) = N(0, 1).
      vamp: p(z) = 1/K sum_k q(z | u_k) with learned pseudo-inputs u_k (Tomczak & Welling 2018). They start at training
        rows; the paper also clips them to the range of the data.
      hierarchical: p(z) is the marginal of p(z | t) p(t), t ~ N(0, 1): a second stochastic layer (Burda et al. 2016).
        log p(z) is replaced by the one-sample bound log p(z | t) + log p(t) - log q(t | z), t ~ q(t | z). Importance
        weights with this bound are those of the whole model.

    Attributes:
      kind: above.
      pseudo_inputs: K of vamp.
      top_dim: size of t.
      top_hidden_dims: widths of the hidden tanh layers of q(t | z); p(z | t) has them in reverse.
    """

    kind: Literal["normal", "vamp", "hierarchical"]
    pseudo_inputs: Size
    top_dim: Size
    top_hidden_dims: tuple[Size, ...]

    depends: ClassVar[dict[str, tuple[str, ...]]] = {}

    def check_rows(self, rows: Examples) -> None:
        """Refuse training rows with padding or missing values if pseudo-inputs start at them."""
        if self.kind == "vamp" and (rows.length is not None or rows.observed is not None):
            remedy = "pseudo-inputs have neither padding nor gaps, which these data have; set {key}=normal"
            raise ConfigError("prior", self.kind, remedy)

    def noise_size(self, latent_dim: int) -> int:
        """Standard normal numbers for one code of one example: those of z, then those of t."""
        return latent_dim + (self.top_dim if self.kind == "hierarchical" else 0)

    def _top(self, encoder: bool, outputs: int) -> DenseStack:
        dims = self.top_hidden_dims if encoder else self.top_hidden_dims[::-1]
        return DenseStack(dims, outputs, "tanh", kernel_init="glorot_uniform")

    def init(self, key: Key[Array, ""], latent_dim: int, feature_shape: tuple[int, ...]) -> dict[str, Any]:
        """Fresh parameters {"prior"} that do not depend on the data; a standard normal has none."""
        match self.kind:
            case "vamp":
                return {"prior": {"pseudo_inputs": jax.random.normal(key, (self.pseudo_inputs, *feature_shape))}}
            case "hierarchical":
                up, down = jax.random.split(key)
                encoder = self._top(True, 2 * self.top_dim).init(up, jnp.zeros((1, latent_dim)))["params"]
                decoder = self._top(False, 2 * latent_dim).init(down, jnp.zeros((1, self.top_dim)))["params"]
                return {"prior": {"encoder": encoder, "decoder": decoder}}
            case _:
                return {}

    def informed(self, key: Key[Array, ""], train: Examples) -> dict[str, Any]:
        """Parameters that replace fresh ones: pseudo-inputs start at training rows."""
        if self.kind != "vamp":
            return {}
        rows = jax.random.choice(key, len(train), (self.pseudo_inputs,), replace=len(train) < self.pseudo_inputs)
        return {"prior": {"pseudo_inputs": jnp.asarray(train.take(rows).x, jnp.float32)}}

    def log_prob(
        self,
        params: Any,
        z: Float[Array, "k B L"],
        noise: Float[Array, "k B extra"],
        posterior: Callable[[Examples], Gaussian],
    ) -> Float[Array, "k B"]:
        """log p(z) in nats, [k, B]; of the hierarchical prior the bound above.

        Args:
          noise: [k, B, top_dim], of the hierarchical prior.
          posterior: the model's q(z | x), for the pseudo-inputs of vamp.
        """
        match self.kind:
            case "vamp":
                pseudo = Examples(x=params["prior"]["pseudo_inputs"])
                return mixture_log_prob(z, *posterior(pseudo)) - jnp.log(self.pseudo_inputs)
            case "hierarchical":
                mean, log_variance = self._apply_top(params, z, True, self.top_dim)
                top = mean + jnp.exp(0.5 * log_variance) * noise
                below = normal_log_prob(z, *self._apply_top(params, top, False, z.shape[-1])).sum(-1)
                return below + (normal_log_prob(top) - normal_log_prob(top, mean, log_variance)).sum(-1)
            case _:
                return normal_log_prob(z).sum(-1)

    def sample(
        self,
        params: Any,
        key: Key[Array, ""],
        number: int,
        latent_dim: int,
        posterior: Callable[[Examples], Gaussian],
    ) -> Float[Array, "{number} {latent_dim}"]:
        """Codes from p(z), [number, L]."""
        if self.kind == "normal":
            return jax.random.normal(key, (number, latent_dim))
        choice_key, code_key = jax.random.split(key)
        if self.kind == "vamp":
            pseudo = Examples(x=params["prior"]["pseudo_inputs"])
            chosen = jax.random.randint(choice_key, (number,), 0, self.pseudo_inputs)
            mean, log_variance = (values[chosen] for values in posterior(pseudo))
        else:
            top = jax.random.normal(choice_key, (number, self.top_dim))
            mean, log_variance = self._apply_top(params, top, False, latent_dim)
        return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(code_key, mean.shape)

    def _apply_top(
        self, params: Any, x: Float[Array, "*B D"], encoder: bool, size: int
    ) -> tuple[Float[Array, "*B size"], Float[Array, "*B size"]]:
        """Mean and log-variance of q(t | z) (encoder) or of p(z | t), of that size."""
        part = params["prior"]["encoder" if encoder else "decoder"]
        outputs: Any = self._top(encoder, 2 * size).apply({"params": part}, x)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        return mean, log_variance


def mixture_log_prob(
    z: Float[Array, "k B L"], mean: Float[Array, "K L"], log_variance: Float[Array, "K L"]
) -> Float[Array, "k B"]:
    """log sum_k N(z; mean_k, exp(log_variance_k)), [k, B] nats.

    A scan over dimensions avoids an array [k, B, K, L], which would not fit in memory. Differences are squared; matrix
    products of z and means would lose whole nats where variances are small.
    """

    @jax.checkpoint
    def step(squares: Float[Array, "k B K"], dimension: Any) -> tuple[Float[Array, "k B K"], None]:
        values, center, spread = dimension
        away = jnp.square(values[..., None] - center[None, None]) * jnp.exp(-spread)[None, None]
        return squares + away + spread[None, None], None

    start = jnp.full((*z.shape[:2], len(mean)), mean.shape[1] * jnp.log(2 * jnp.pi))
    squares, _ = jax.lax.scan(step, start, (jnp.moveaxis(z, -1, 0), mean.T, log_variance.T))
    return jax.nn.logsumexp(-0.5 * squares, axis=-1)
