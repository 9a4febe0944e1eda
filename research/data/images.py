"""Image data sets: scikit-learn's digits, MNIST and Fashion-MNIST."""

import dataclasses
import importlib.metadata
import math
from typing import ClassVar, Literal

import numpy as np

from research.data.examples import Examples
from research.data.files.local import Unusable, fetch
from research.data.preparation import Preparation
from research.data.source import Source, Splitting
from research.ranges import OpenShare, Seed
from research.tree import ConfigError, recipe


@recipe
class Images(Splitting):
    """Images [N, H, W] of one channel, which may also be read as sequences.

    Attributes:
      binarize: "once" draws x ~ Bernoulli(x) when the data are read, "dynamic" anew in every training batch.
      layout: "image" [N, H, W]; "rows" reads a sequence of H steps with W channels, top row first; "pixels" a sequence
        [N, H W, 1] of single pixels, row after row (sequential MNIST: Le, Jaitly, Hinton, 2015, arXiv:1504.00941).
      permutation_seed: with "pixels", put the pixels of all images into the one order that this seed draws (permuted
        MNIST, same paper); null keeps theirs.
    """

    binarize: Literal["none", "once", "dynamic"]
    layout: Literal["image", "rows", "pixels"]
    permutation_seed: Seed | None

    def validate(self) -> None:
        """Refuse a permutation that no layout uses."""
        super().validate()
        seed = self.permutation_seed
        if seed is not None and self.layout != "pixels":
            remedy = f"data.layout={self.layout} has no order; use data.layout=pixels"
            raise ConfigError("permutation_seed", seed, remedy)

    def laid_out(self, source: Source) -> Source:
        """The same source, to be read in the layout of the key."""
        preparation = Preparation(layout=self.layout, permutation_seed=self.permutation_seed)
        kind = source.kind if self.layout == "image" else "sequence"
        return dataclasses.replace(source, kind=kind, preparation=preparation)


@recipe
class Digits(Images):
    """1,797 handwritten digits, 8 by 8 pixels with values 0 to 16, installed with scikit-learn (UCI ML, 1998).

    x [1797, 8, 8] uint8 in the layout "image", label [1797] int32.

    Attributes:
      test_fraction: share of the rows that are test rows.
    """

    test_fraction: OpenShare

    def stored(self) -> Source:
        """All rows."""
        # The file is read without importing scikit-learn, which takes more than a second.
        path = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        table = np.loadtxt(str(path), delimiter=",", dtype=np.int32)
        x = table[:, :-1].reshape(-1, 8, 8).astype(np.uint8)
        examples = Examples(x=x, label=table[:, -1].copy())
        return self.laid_out(Source("digits", "image", examples, unit=16))


@recipe
class IdxImages(Images):
    """Images published as four gzip files in the idx format, with a fixed test part.

    x [N, H, W] uint8 in the layout "image", label [N] int32.
    """

    name: ClassVar[str]
    mirrors: ClassVar[tuple[str, ...]]
    sha256: ClassVar[dict[str, str]]  # part of the file name -> of the decompressed content

    def stored(self) -> Source:
        """All rows, training before test."""
        images, labels = [], []
        for part in ("train", "t10k"):
            images.append(self._read(f"{part}-images-idx3-ubyte", 3))
            labels.append(self._read(f"{part}-labels-idx1-ubyte", 1))
            if len(images[-1]) != len(labels[-1]):
                raise ConfigError("root", self.root, f"{part}: {len(images[-1])} images but {len(labels[-1])} labels")
        if images[0].shape[1:] != images[1].shape[1:]:
            raise ConfigError("root", self.root, f"images of {images[0].shape[1:]} and {images[1].shape[1:]} pixels")
        return self.laid_out(
            Source(
                self.name,
                "image",
                Examples(x=np.concatenate(images), label=np.concatenate(labels).astype(np.int32)),
                test=np.repeat([False, True], [len(labels[0]), len(labels[1])]),
                unit=255,
            )
        )

    def _read(self, name: str, rank: int) -> np.ndarray:
        content = fetch(f"{name}.gz", self.sha256[name], folder=self.name, mirrors=self.mirrors, root=self.root)
        try:
            return parse_idx(content, rank)
        except Unusable as error:
            raise ConfigError("root", self.root, f"{name} cannot be used: {error}") from None


@recipe
class MNIST(IdxImages):
    """60,000 + 10,000 handwritten digits, 28 by 28 pixels (LeCun, Cortes, Burges, 1998)."""

    name: ClassVar[str] = "mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    sha256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }


@recipe
class FashionMNIST(IdxImages):
    """60,000 + 10,000 articles of clothing, 28 by 28 pixels (Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747)."""

    name: ClassVar[str] = "fashion_mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    )
    sha256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }


def parse_idx(content: bytes, rank: int) -> np.ndarray:
    """The uint8 array of an idx file: magic number 0x0800 + rank, then `rank` big-endian sizes, then the values.

    Raises:
      Unusable: it is cut short, too long or of another kind.
    """
    header, expected_magic = 4 * (1 + rank), 0x0800 + rank  # size in bytes, and first number
    if len(content) < header:
        raise Unusable(f"it is cut short: {len(content)} bytes, an idx header has {header}")
    magic, *shape = np.frombuffer(content, ">u4", 1 + rank).tolist()
    if magic != expected_magic:
        raise Unusable(
            f"it is not an idx file of {rank} axes: magic number {magic:#010x}, expected {expected_magic:#010x}"
        )
    expected, size = math.prod(shape), len(content) - header
    if size != expected:
        problem = "cut short" if size < expected else "too long"
        raise Unusable(f"it is {problem}: sizes {shape} need {expected} values, the file has {size}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
