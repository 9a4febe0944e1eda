"""The keys `evaluation.*`: what is computed after training."""

import importlib.util
from typing import Annotated, ClassVar, Literal

from research.data.examples import Facts
from research.ranges import INT32, Count, NonNegative, OpenShare, Range, Repeats
from research.tree import ConfigError, added, recipe

Clusters = Annotated[int, Range(2, 10_000)]
FEWEST_ON_MAP = 10  # rows: t-SNE needs three times as many as its perplexity


@recipe
class Evaluation:
    """What is computed after training, on the host. A finished run can be evaluated again with another recipe.

    Attributes:
      nll_samples: k, importance samples of the likelihood of every test example; null computes no likelihood.
      nll_examples: the likelihood is that of so many test rows, the first ones; null: of all.
      binarizations: for dynamically binarised data, how many further draws of the test rows the `redrawn/...` metrics
        are the mean of; null: there are none.
      probes: accuracy of k nearest neighbours and of a logistic regression on the codes.
      neighbors: k of the k nearest neighbours.
      probe_iterations: most iterations of the logistic regression.
      active_units: number of latent dimensions in use, for models with a posterior.
      active_threshold: a dimension is in use if the variance of its posterior mean is above this.
      baselines: what methods without training score on the same rows, and errors in the units of the data.
      usage: whether the decoder uses its code, for models with a posterior: what the reconstruction loses at the codes
        of other rows, and the KL of every dimension. For models with a codebook, how evenly it is used.
      clustering: k-means on the codes of the test rows. "none" computes none, "classes" takes as many clusters as there
        are classes, "silhouette" and "stability" choose the number on the training codes without labels.
      cluster_range: smallest and largest number of clusters to choose from.
      cluster_starts: starts of every k-means, of which the best is kept.
      anomaly_share: share of the validation rows below the threshold of the anomaly score, for data with anomalies;
        null computes no such scores.
      forecasts: sMAPE and MASE of a forecaster, CRPS, coverage and width of its intervals, and naive forecasts.
      conformal: also the coverage and width of intervals that are corrected on the validation rows, for a forecaster.
      generation: scores of generated sequences against real ones; several networks are trained for them.
      generation_rows: most rows of each kind that these scores are computed on; null: all.
      distances: those of the scores of generated sequences for which no network is trained, for models that only
        sample (seconds).
      disentanglement: how well single dimensions hold single factors, for data with known discrete factors; and what
        codes say at all, for models with a posterior.
      sampling: precision, recall, density, coverage and a Fréchet distance of samples, for images and vectors with
        labels; a classifier is trained for them.
      sampling_rows: most rows of each kind that these are computed on; null: all.
      gradients: how far back in time the gradient of the loss reaches, for models that predict from a whole sequence.
      pictures: reconstructions, samples, latent traversals, forecasts and a map of the codes.
      map: "tsne" or "umap" also draws a map of the codes of at most 5,000 test rows by this method.
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
    conformal: bool = added(before=False)
    generation: bool
    generation_rows: Annotated[int, Range(20, INT32)] | None
    distances: bool = added(before=True)
    disentanglement: bool
    sampling: bool
    sampling_rows: Annotated[int, Range(20, INT32)] | None
    gradients: bool
    pictures: bool
    map: Literal["none", "tsne", "umap"] = added(before="none")
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
        if self.map == "umap" and importlib.util.find_spec("umap") is None:
            remedy = "it needs the package umap-learn: pip install -e '.[maps]', or set {key}=tsne"
            raise ConfigError("map", self.map, remedy)

    def check(self, facts: Facts) -> None:
        """Refuse what these data cannot give, before any training.

        Raises:
          ConfigError: it names the key, the value and the remedy.
        """
        self._check_sampling(facts)
        self._check_clustering(facts)
        if self.map != "none" and facts.test_size < FEWEST_ON_MAP:
            rows = f"the data have {facts.test_size} test rows, and a map needs {FEWEST_ON_MAP}"
            raise ConfigError("map", self.map, f"{rows}; set {{key}}=none")

    def _check_sampling(self, facts: Facts) -> None:
        if not self.sampling:
            return
        problem = ""
        if facts.kind == "sequence":
            problem = "samples of sequences are scored by evaluation.generation=true"
        elif facts.classes < 2:
            problem = f"the data have {facts.classes or 'no'} classes to train a classifier on"
        elif min(facts.train_size, facts.test_size) < 20:
            rows = f"{facts.train_size} training rows and {facts.test_size} test rows"
            problem = f"the data have {rows}, and both must be 20 or more"
        if problem:
            raise ConfigError("sampling", True, f"{problem}; set {{key}}=false")

    def _check_clustering(self, facts: Facts) -> None:
        if self.clustering == "none":
            return
        if self.clustering == "classes":
            if facts.classes < 2:
                remedy = f"the data have {facts.classes or 'no'} classes; use {{key}}=silhouette or {{key}}=none"
                raise ConfigError("clustering", self.clustering, remedy)
            key, value = "clustering", f"{self.clustering} ({facts.classes} clusters)"
            clusters, rows = facts.classes, facts.test_size
        else:
            key, value = "cluster_range", list(self.cluster_range)
            clusters, rows = self.cluster_range[1], min(facts.test_size, facts.train_size // 2 - 1)
        if clusters >= rows:
            raise ConfigError(key, value, f"there are only {rows} rows to cluster; take fewer clusters")
