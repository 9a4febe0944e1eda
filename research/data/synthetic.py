"""Gaussian vectors whose exact likelihood is known."""

from typing import Literal

import numpy as np

from research.data.examples import Examples
from research.data.source import Source, Splitting
from research.ranges import Count, OpenShare, Positive, Seed, Size
from research.tree import ConfigError, recipe


@recipe
class LowRank(Splitting):
    """Gaussian data around a subspace: `x = W z + mean + noise_scale * e` with z, e ~ N(0, I) (probabilistic PCA).

    x [rows, features] float32, factors z [rows, rank] float32. Entries of W have variance 1 / rank, so that the signal
    of each feature has variance 1 on average; entries of the mean have variance 1. Unscaled data has the reference
    `nll_nats`, the mean over the test rows of -log N(x; mean, W W^T + noise_scale^2 I), in nats per example: no model
    can be better but by chance (Tipping and Bishop, 1999).

    Attributes:
      scaling: "unit" has no meaning here.
      test_fraction: share of the rows that are test rows.
      rows, features, rank: sizes.
      noise_scale: standard deviation of the noise.
      data_seed: draws W, mean, z and the noise.
    """

    scaling: Literal["none", "standard", "minmax"]
    test_fraction: OpenShare
    rows: Count
    features: Size
    rank: Size
    noise_scale: Positive
    data_seed: Seed

    def validate(self) -> None:
        """Refuse a rank above the number of features."""
        super().validate()
        if self.rank > self.features:
            raise ConfigError("rank", self.rank, f"expected no more than data.features={self.features}")

    def stored(self) -> Source:
        """Draw all rows."""
        random = np.random.Generator(np.random.PCG64(self.data_seed))
        weights = random.standard_normal((self.features, self.rank)) / np.sqrt(self.rank)
        mean = random.standard_normal(self.features)
        factors = random.standard_normal((self.rows, self.rank))
        noise = random.standard_normal((self.rows, self.features))
        x = factors @ weights.T + mean + self.noise_scale * noise
        covariance = weights @ weights.T + self.noise_scale**2 * np.eye(self.features)

        def reference(test: Examples) -> dict[str, float]:
            return {"nll_nats": float(gaussian_nll(test.x, mean, covariance).mean())}

        examples = Examples(x=x.astype(np.float32), factors=factors.astype(np.float32))
        return Source("low_rank", "vector", examples, reference=reference)


def gaussian_nll(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """-log N(x; mean, covariance) = (D log(2 pi) + log det C + (x - mean)^T C^-1 (x - mean)) / 2, [N] nats."""
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, (np.asarray(x, np.float64) - mean).T)
    log_determinant = 2 * np.log(np.diag(factor)).sum()
    return 0.5 * (len(mean) * np.log(2 * np.pi) + log_determinant + np.square(white).sum(axis=0))
