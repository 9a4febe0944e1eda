"""Penalties on the codes of a batch: total correlation, DIP, maximum mean discrepancy, a discriminator."""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.distributions import normal_log_prob
from research.networks.dense import DenseStack
from research.ranges import NonNegative, Size
from research.tree import ConfigError, spec

DISCRIMINATED = ("factor", "adversarial")
TOWARDS_PRIOR = ("mmd", "adversarial")
MMD_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@spec
class Penalty:
    """Settings of a penalty on the codes of a model: `penalty_weight` * R is added to the loss.

    R of codes z [B, L] is, by `kind`,
      mmd: the maximum mean discrepancy between codes and prior. With a posterior this is InfoVAE (Zhao et al. 2019;
        beta = 1 - alpha, weight = alpha + lambda - 1), without noise in the code WAE (Tolstikhin et al. 2018).
      adversarial: by a discriminator between codes and prior (Makhzani et al. 2015). The encoder has one optimizer, on
        the weighted sum of reconstruction and deception; the paper alternates the two.
      The other kinds need a posterior (`PosteriorPenalty`).

    Codes are constants in the discriminator's term, and the discriminator is a constant in the codes' term. So one
    gradient of the sum holds the gradients of both players. `optimizer=discriminator` gives the discriminator an
    optimizer of its own. A penalty is of a batch: the loss of validation and test rows leaves it out.

    Attributes:
      kind: above; "none" adds nothing.
      penalty_weight: its weight.
      discriminator_dims: widths of the hidden layers (leaky ReLU) of the discriminator.
    """

    kind: Literal["none", "total_correlation", "factor", "dip_i", "dip_ii", "mmd", "adversarial"]
    penalty_weight: NonNegative
    discriminator_dims: tuple[Size, ...]

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("kind", "penalty_weight")}

    @property
    def towards_prior(self) -> bool:
        """Whether the penalty pulls codes to the prior, so that codes from the prior are codes of the model."""
        return self.kind in TOWARDS_PRIOR

    def check_without_posterior(self) -> None:
        """Refuse a penalty that needs a posterior."""
        if self.kind not in ("none", *TOWARDS_PRIOR):
            remedy = f"this model has codes without a posterior; it takes none, {', '.join(TOWARDS_PRIOR)}"
            raise ConfigError("penalty", self.kind, remedy)

    def check_batch(self, batch_size: int) -> None:
        """Refuse batches of one row if the penalty compares the rows of a batch."""
        if batch_size < 2 and self.kind not in ("none", "adversarial"):
            remedy = f"it compares the rows of a batch, so at trainer.batch_size={batch_size} it does nothing"
            raise ConfigError("penalty", self.kind, f"{remedy}; set trainer.batch_size=32 or {{key}}=none")

    def discriminator(self) -> DenseStack:
        """The discriminator as a Linen module, [B, L] -> logits [B, 1]."""
        return DenseStack(self.discriminator_dims, 1, "leaky_relu")

    def init(self, key: Key[Array, ""], latent_dim: int) -> dict[str, Any]:
        """Fresh parameters {"discriminator"} if there is one. Only training needs them."""
        if self.kind not in DISCRIMINATED:
            return {}
        return {"discriminator": self.discriminator().init(key, jnp.zeros((1, latent_dim)))["params"]}

    def discriminate(self, params: Any, z: Float[Array, "B L"]) -> Float[Array, " B"]:
        """Logit of every code, [B]. A large logit means a code of the data (factor) or of the prior (adversarial)."""
        logits: Any = self.discriminator().apply({"params": params["discriminator"]}, z)
        return logits[:, 0]

    def of_codes(
        self, params: Any, z: Float[Array, "B ..."], prior: Float[Array, "B L"] | None
    ) -> tuple[Any, dict[str, Float[Array, ""]]]:
        """The term that is added to the loss, and scalars to log. `prior` are as many codes from the prior."""
        assert prior is not None
        if self.kind == "mmd":
            value = mean_discrepancy(z, prior)
            return self.penalty_weight * value, {"penalty": value}
        judged = self.discriminate(jax.lax.stop_gradient(params), z)
        code = self.discriminate(params, jax.lax.stop_gradient(z))
        low, high = code, self.discriminate(params, jax.lax.stop_gradient(prior))
        return self.game(jax.nn.softplus(-judged).mean(), low, high)

    def game(
        self, value: Float[Array, ""], low: Float[Array, " B"], high: Float[Array, " B"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Both players' terms: the penalty on the codes, and the discriminator's loss, small for `high` above `low`."""
        loss = 0.5 * (jax.nn.softplus(-high).mean() + jax.nn.softplus(low).mean())
        return self.penalty_weight * value + loss, {"penalty": value, "discriminator_loss": loss}


@spec
class PosteriorPenalty(Penalty):
    """Settings of a penalty on codes with a posterior q(z | x) = N(m, v). Beside the kinds of `Penalty`, R is

      total_correlation: E log q(z) - sum_l log q(z_l), by `aggregate_log_probs` with N training rows. With beta = 1 and
        a weight of b - 1, the loss is that of beta-TCVAE at beta = b (Chen et al. 2018), with the KL in closed form.
      factor: the same by a discriminator between codes and codes whose dimensions are shuffled separately (FactorVAE:
        Kim & Mnih 2018), here within one batch.
      dip_i, dip_ii: sum_(i != j) C_ij^2 + dip_diagonal sum_i (C_ii - 1)^2, C = Cov[m], and for dip_ii + E diag(v)
        (Kumar et al. 2018).

    Attributes:
      dip_diagonal: weight of the variances in dip_i and dip_ii, in units of the weight of the covariances. The paper
        has 10 for dip_i and 1 for dip_ii.
    """

    dip_diagonal: NonNegative

    depends: ClassVar[dict[str, tuple[str, ...]]] = {"loss": ("dip_diagonal",)}

    def of_posterior(
        self,
        params: Any,
        z: Float[Array, "B L"],
        posterior: tuple[Float[Array, "B L"], Float[Array, "B L"]],
        prior: Float[Array, "B L"] | None,
        key: Key[Array, ""],
        train_size: Any,
    ) -> tuple[Any, dict[str, Float[Array, ""]]]:
        """The term that is added to the loss, and scalars to log.

        Args:
          z: one code of every example.
          posterior: mean and log-variance of q(z | x).
          prior: as many codes from the prior, for a penalty towards it.
          train_size: N.
        """
        match self.kind:
            case "factor":
                judged = self.discriminate(jax.lax.stop_gradient(params), z)
                code = self.discriminate(params, jax.lax.stop_gradient(z))
                keys = jax.random.split(key, z.shape[1])
                apart = jax.vmap(jax.random.permutation, (0, 1), 1)(keys, jax.lax.stop_gradient(z))
                return self.game(judged.mean(), self.discriminate(params, apart), code)
            case "total_correlation":
                joint, product = aggregate_log_probs(z, *posterior, train_size)
                value = (joint - product).mean()
            case "dip_i" | "dip_ii":
                mean, log_variance = posterior
                centered = mean - mean.mean(0, keepdims=True)
                covariance = centered.T @ centered / len(mean)
                if self.kind == "dip_ii":
                    covariance = covariance + jnp.diag(jnp.exp(log_variance).mean(0))
                variances = jnp.diag(covariance)
                apart = jnp.square(covariance).sum() - jnp.square(variances).sum()
                value = apart + self.dip_diagonal * jnp.square(variances - 1).sum()
            case _:
                return self.of_codes(params, z, prior)
        return self.penalty_weight * value, {"penalty": value}


def aggregate_log_probs(
    z: Float[Array, "B L"], mean: Float[Array, "B L"], log_variance: Float[Array, "B L"], train_size: Any
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """log q(z) and sum_l log q(z_l) of the aggregate posterior q(z) = 1/N sum_n q(z | x_n), both [B] nats.

    Estimated from the batch: the row that made z has weight 1/N, every other row (N - 1) / (N (B - 1)). The estimate of
    q is unbiased (that of its log is not), and exact at B = N. Chen et al. (2018) give all rows the same weight, or in
    their stratified sampling give one other row the rest.

    The KL of the ELBO is the sum of mutual information, total correlation and dimension-wise KL:
    E[log q(z | x) - log q(z)] + E[log q(z) - sum_l log q(z_l)] + E[sum_l log q(z_l) - log p(z)].
    """
    rows = len(z)
    others = (train_size - 1) / (train_size * max(rows - 1, 1))
    log_weight = jnp.log(jnp.where(jnp.eye(rows, dtype=bool), 1 / train_size, others))
    of_row = lambda mean, log_variance: normal_log_prob(z, mean[None], log_variance[None])
    pairs = jax.vmap(of_row, out_axes=1)(mean, log_variance)  # [B, B, L]: every code under every posterior
    joint = jax.nn.logsumexp(pairs.sum(-1) + log_weight, axis=1)
    return joint, jax.nn.logsumexp(pairs + log_weight[..., None], axis=1).sum(-1)


def mean_discrepancy(x: Float[Array, "B L"], y: Float[Array, "B L"]) -> Float[Array, ""]:
    """Unbiased estimate of the squared maximum mean discrepancy of two samples; it may be below 0.

    sum_(i != j) [k(x_i, x_j) + k(y_i, y_j)] / (B (B - 1)) - 2 / B^2 sum_ij k(x_i, y_j), with the mean over s in
    `MMD_SCALES` of the inverse multiquadratics k(a, b) = 2 L s / (2 L s + |a - b|^2) (Tolstikhin et al. 2018).
    """
    rows, size = x.shape
    scale = 2.0 * size * jnp.asarray(MMD_SCALES)[:, None, None]

    def kernel(a: Float[Array, "B L"], b: Float[Array, "B L"]) -> Float[Array, "B B"]:
        distance = jnp.square(a[:, None] - b[None]).sum(-1)
        return (scale / (scale + distance[None])).mean(0)

    apart = 1 - jnp.eye(rows)
    within = (apart * (kernel(x, x) + kernel(y, y))).sum() / max(rows * (rows - 1), 1)
    return within - 2 * kernel(x, y).mean()
