"""What is done with a trained model besides its metrics."""

from typing import Annotated, ClassVar, Literal

from research.data.examples import Facts
from research.ranges import INT32, Count, NonNegative, OpenShare, Range, Repeats
from research.tree import ConfigError, recipe

Clusters = Annotated[int, Range(2, 10_000)]


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
      baselines: principal components at the same latent size, and the mean, on the same rows; and errors in the units
        of the data.
      usage: whether the decoder uses its code (of models with a posterior): what the reconstruction loses at the codes
        of other rows, KL of every dimension; of models with a codebook how much of it the codes use.
      clustering: k-means on the codes of the test rows: "none"; "classes" has as many clusters as classes; "silhouette"
        and "stability" choose the number on the training codes without labels.
      cluster_range: smallest and largest number to choose from.
      cluster_starts: of every k-means, the best is kept.
      anomaly_share: share of the validation rows below the threshold of the anomaly score, where the data have
        anomalies; null: no such scores.
      forecasts: sMAPE and MASE of a forecaster, and naive forecasts.
      generation: scores of generated sequences against real ones; several networks are trained for them.
      generation_rows: most rows of each kind that these scores are of; null: all.
      disentanglement: how well single dimensions hold single factors, where data have known discrete factors.
      sampling: precision, recall, density, coverage and a Frechet distance of samples on features of a classifier that
        is trained for them (of images and vectors with labels).
      sampling_rows: most rows of each kind that these are of; null: all.
      gradients: how far back in time the gradient of the loss reaches (of models that predict from a whole sequence).
      pictures: reconstructions, samples, latent traversals, forecasts and a map of the codes.
      projector: codes of the test rows for TensorBoard's projector.
    """

    nll_samples: Repeats | None
    nll_examples: Count | None
    binarizations: Repeats | None
    probes: bool
    neighbors: Count
    probe_iterations: Count
    active_units: bool
    active_threshold: NonNegative
    baselines: bool
    usage: bool
    clustering: Literal["none", "classes", "silhouette", "stability"]
    cluster_range: tuple[Clusters, Clusters]
    cluster_starts: Repeats
    anomaly_share: OpenShare | None
    forecasts: bool
    generation: bool
    generation_rows: Annotated[int, Range(20, INT32)] | None
    disentanglement: bool
    sampling: bool
    sampling_rows: Annotated[int, Range(20, INT32)] | None
    gradients: bool
    pictures: bool
    projector: bool

    depends: ClassVar[dict[str, tuple[str, ...]]] = {
        "nll_nats": ("nll_samples", "nll_examples"),
        "knn_accuracy": ("neighbors",),
        "probe_accuracy": ("probe_iterations",),
        **dict.fromkeys(
            ("ari", "nmi", "rand_index", "cluster_accuracy", "silhouette"),
            ("clustering", "cluster_range", "cluster_starts"),
        ),
        **dict.fromkeys(("precision", "recall", "false_positive_rate"), ("anomaly_share",)),
        **dict.fromkeys(("discriminative_score", "predictive_score", "classifier_score"), ("generation_rows",)),
        **dict.fromkeys(("sample_precision", "sample_recall", "coverage", "frechet_distance"), ("sampling_rows",)),
    }

    def validate(self) -> None:
        low, high = self.cluster_range
        if low > high:
            raise ConfigError("cluster_range", list(self.cluster_range), "expected [smallest, largest]")

    def check(self, facts: Facts) -> None:
        """Refuse what these data cannot give, before any training.

        Raises:
          ConfigError: naming the key, the value and the remedy.
        """
        if self.sampling:
            remedy = ""
            if facts.kind == "sequence":
                remedy = "samples of sequences are scored by evaluation.generation=true; set {key}=false"
            elif facts.classes < 2:
                remedy = f"the data have {facts.classes or 'no'} classes to train a classifier on; set {{key}}=false"
            elif min(facts.train_size, facts.test_size) < 20:
                remedy = (
                    f"of {facts.train_size} training and {facts.test_size} test rows; 20 are needed; set {{key}}=false"
                )
            if remedy:
                raise ConfigError("sampling", True, remedy)
        if self.clustering == "none":
            return
        if self.clustering == "classes" and facts.classes < 2:
            remedy = f"the data have {facts.classes or 'no'} classes; use {{key}}=silhouette or {{key}}=none"
            raise ConfigError("clustering", self.clustering, remedy)
        rows, key, value = facts.test_size, "clustering", f"{self.clustering} ({facts.classes} clusters)"
        needed = facts.classes
        if self.clustering != "classes":
            key, value = "cluster_range", list(self.cluster_range)
            rows = min(facts.test_size, facts.train_size // 2 - 1)
            needed = self.cluster_range[1]
        if needed >= rows:
            raise ConfigError(key, value, f"only {rows} rows are there to be clustered; take fewer clusters")
