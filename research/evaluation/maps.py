"""Maps of codes: their neighbourhoods in the plane, by t-SNE or UMAP.

Both place near each other what is near in the space of codes. Distances between groups, their sizes and their densities
on such a map carry no meaning (Wattenberg, Viegas & Johnson 2016, "How to Use t-SNE Effectively"). So nothing is
computed from it.
"""

import warnings
from typing import Any, Literal

import numpy as np

from research.evaluation.pictures import scatter
from research.evaluation.plots import captioned
from research.evaluation.recipe import FEWEST_ON_MAP
from research.evaluation.subject import Findings, Subject
from research.evaluation.views import class_names, spread

Method = Literal["tsne", "umap"]
NAMES = {"tsne": "t-SNE", "umap": "UMAP"}
LARGEST = 5000  # rows of a map: the time of t-SNE grows a little faster than their number
SEED = 0
NARROWEST = 1e-15  # smallest range of codes: of equal ones t-SNE starts at NaN, and scikit-learn ends the process
PERPLEXITY, NEIGHBORS = 30, 15  # effective number of neighbours of t-SNE, and number of those of UMAP; both usual


def embed(codes: np.ndarray, method: Method) -> tuple[np.ndarray, str]:
    """Points in the plane [N, 2] of codes [N, L], and the setting that they depend on, in words.

    t-SNE (van der Maaten & Hinton 2008) is scikit-learn's and starts at the two principal components; UMAP (McInnes,
    Healy & Melville 2018) is that of umap-learn. Equal codes give equal points: the seed is fixed, and one thread adds
    the numbers up.
    """
    from threadpoolctl import threadpool_limits

    rows = len(codes)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn says that a seed costs its threads
        if method == "tsne":
            from sklearn.manifold import TSNE

            perplexity = min(PERPLEXITY, (rows - 1) // 3)
            start = "pca" if codes.shape[1] > 1 else "random"
            fitted: Any = TSNE(perplexity=perplexity, init=start, random_state=SEED)
            return fitted.fit_transform(codes.astype(np.float64)), f"perplexity {perplexity}"
        from umap import UMAP  # type: ignore[import-not-found]

        neighbors = min(NEIGHBORS, rows - 1)
        fitted = UMAP(n_neighbors=neighbors, random_state=SEED, n_jobs=1)
        return fitted.fit_transform(codes.astype(np.float64)), f"{neighbors} neighbours"


def study(subject: Subject, findings: Findings) -> None:
    """Draw `codes_tsne` or `codes_umap`: the codes of the test rows, colored by class, with its settings below it.

    Of more than 5,000 rows it has 5,000 at even distances.
    """
    method: Any = subject.recipe.map
    codes = subject.codes("test")
    rows = spread(len(codes), LARGEST)
    rows = rows[np.isfinite(codes[rows]).all(1)]
    if len(rows) < FEWEST_ON_MAP:
        findings.refuse(f"fewer than {FEWEST_ON_MAP} rows have finite codes", f"test/codes_{method}")
        return
    if np.ptp(codes[rows], axis=0).max() < NARROWEST:
        findings.refuse("all codes are equal, so none is nearer than another", f"test/codes_{method}")
        return
    points, setting = embed(codes[rows], method)
    label = None if subject.test.label is None else np.asarray(subject.test.label)[rows]
    names = [] if label is None else class_names(subject.classes, subject.facts)
    picture = scatter(points, label, names)
    of_rows = f"{len(rows):,} test rows" if len(rows) == len(codes) else f"{len(rows):,} of {len(codes):,} test rows"
    lines = (
        f"{NAMES[method]} of the codes of {of_rows},",
        f"{setting}, seed {SEED}. Distances between groups,",
        "their sizes and densities carry no meaning.",
    )
    for line in lines:
        picture = captioned(picture, line)
    findings.pictures[f"codes_{method}"] = picture
