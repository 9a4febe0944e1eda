"""What is done with a trained model besides its metrics."""

from research.tree import ConfigError, recipe


@recipe
class Evaluation:
    """What is computed after training, on the host; a finished run can be evaluated again with another recipe.

    Attributes:
      nll_samples: k, importance samples of the likelihood of every test example; null computes none.
      nll_examples: how many test rows, the first ones, that likelihood is of; null: all.
      binarizations: of dynamically binarised data, number of further draws of the test rows that `redrawn/...`
        metrics are the mean of; null: none.
      probes: accuracy of k-nearest neighbours and of a logistic regression on the codes.
      neighbors: of the k-nearest neighbours.
      probe_iterations: most iterations of the logistic regression.
      active_units: number of latent dimensions in use (of models with a posterior).
      active_threshold: variance of the posterior mean above which a dimension is in use.
      baselines: principal components at the same latent size, and the mean, on the same rows.
      pictures: reconstructions, samples, latent traversals and a map of the codes.
      projector: codes of the test rows for TensorBoard's projector.
    """

    nll_samples: int | None
    nll_examples: int | None
    binarizations: int | None
    probes: bool
    neighbors: int
    probe_iterations: int
    active_units: bool
    active_threshold: float
    baselines: bool
    pictures: bool
    projector: bool

    def validate(self) -> None:
        for name in ("nll_samples", "nll_examples", "binarizations", "neighbors", "probe_iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(name, value, "must be at least 1")
        if self.active_threshold < 0:
            raise ConfigError("active_threshold", self.active_threshold, "must not be negative")
