"""Sequences with known answers: sines, autoregressions, and two tests of memory whose batches are drawn anew."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from research.data.examples import Examples
from research.data.source import Source, Splitting
from research.data.synthetic import gaussian_nll
from research.ranges import Count, Finite, OpenShare, Positive, Seed, Size
from research.tree import ConfigError, recipe

SYMBOLS, KINDS = 10, 8  # copy memory: the number of symbols to remember, and of their kinds
BLANK, DELIMITER, CLASSES = 0, 9, 10


@recipe
class Generated(Splitting):
    """Rows that a program draws.

    Attributes:
      test_fraction: share of the rows that are test rows.
      rows: number of rows.
      data_seed: draws the rows.
    """

    test_fraction: OpenShare
    rows: Count
    data_seed: Seed


@recipe
class Sines(Generated):
    """Sine waves in [0, 1]: `x[t, c] = (1 + sin(frequency_c t + phase_c)) / 2` for t = 0..T-1.

    Every channel c of every row has a frequency and a phase of its own.
    x [rows, length, channels] float32; factors [rows, 2 channels] float32 hold the frequencies, then the phases, both
    uniform. They are the artificial data of TimeGAN (Yoon, Jarrett, van der Schaar, 2019); the code that its authors
    published draws both from [0, 0.1].

    Attributes:
      scaling: "unit" has no meaning here.
      length, channels: sizes.
      frequency: interval of the frequencies, in radians per step.
      phase: interval of the phases, in radians.
    """

    scaling: Literal["none", "standard", "minmax"]
    length: Size
    channels: Size
    frequency: tuple[Finite, Finite]
    phase: tuple[Finite, Finite]

    def validate(self) -> None:
        """Refuse intervals whose lower end is above their upper end."""
        super().validate()
        for name in ("frequency", "phase"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(name, list(getattr(self, name)), "expected [lowest, highest]")

    def stored(self) -> Source:
        """Draw all rows."""
        # `shuffle` orders the rows by the first numbers of PCG64(split_seed). If a single channel had them as its
        # frequencies, the test rows would be those of the lowest frequencies.
        seed = self.data_seed if self.channels > 1 else [self.data_seed, 1]
        random = np.random.Generator(np.random.PCG64(seed))
        frequency = random.uniform(*self.frequency, (self.rows, self.channels))
        phase = random.uniform(*self.phase, (self.rows, self.channels))
        angle = frequency[:, None] * np.arange(self.length)[:, None] + phase[:, None]
        factors = np.concatenate([frequency, phase], axis=1).astype(np.float32)
        examples = Examples(x=((1 + np.sin(angle)) / 2).astype(np.float32), factors=factors)
        return Source("sines", "sequence", examples)


@recipe
class Autoregression(Generated):
    """Stationary Gaussian AR(p): `x_t = sum_i coefficients_i x_{t-i} + noise_scale e_t` with e_t ~ N(0, 1).

    x [rows, length, 1] float32, from the stationary distribution; with a horizon also target [rows, horizon, 1], the
    steps that follow. Unscaled data has a reference. Without a horizon it is `nll_nats`, the mean over the test rows of
    -log N(x; 0, C) with the autocovariances in C, in nats per example: no model can be better but by chance. With one
    it is the expected `mse` of the best predictor, `noise_scale^2 / H sum_{h=1..H} sum_{j<h} psi_j^2` with the weights
    psi of the noise in x, which is linear (Box and Jenkins, 1970, chapter 5).

    Attributes:
      scaling: "unit" has no meaning here.
      coefficients: from lag 1 to lag p; the roots of `z^p - sum_i coefficients_i z^(p-i)` must lie inside the circle.
      noise_scale: standard deviation of the noise.
      length: number of steps T of x.
      horizon: number of steps H to predict; null for none.
    """

    scaling: Literal["none", "standard", "minmax"]
    coefficients: tuple[Finite, ...]
    noise_scale: Positive
    length: Size
    horizon: Size | None

    def validate(self) -> None:
        """Refuse processes that are not stationary, and too few steps to predict from."""
        super().validate()
        shown = list(self.coefficients)
        if not shown:
            raise ConfigError("coefficients", shown, "expected one number or more: 'data.coefficients=[0.7]'")
        largest = float(np.abs(np.roots([1.0, *(-value for value in shown)])).max(initial=0))
        if largest >= 1 - 1e-6:
            remedy = f"this process is not stationary: a root has modulus {largest:.6g}, expected less than 1"
            raise ConfigError("coefficients", shown, remedy)
        if self.horizon is not None and self.length < len(shown):
            raise ConfigError("length", self.length, f"a prediction needs the last {len(shown)} steps (coefficients)")

    def stored(self) -> Source:
        """Draw all rows."""
        from scipy.linalg import toeplitz

        order, total = len(self.coefficients), self.length + (self.horizon or 0)
        random = np.random.Generator(np.random.PCG64(self.data_seed))
        start = np.linalg.cholesky(toeplitz(autocovariance(self.coefficients, self.noise_scale, order)))
        x = np.empty((self.rows, max(total, order)))
        x[:, :order] = random.standard_normal((self.rows, order)) @ start.T
        noise = self.noise_scale * random.standard_normal(x.shape)
        newest_first = np.asarray(self.coefficients)[::-1]
        for step in range(order, total):
            x[:, step] = x[:, step - order : step] @ newest_first + noise[:, step]
        values = x[:, :total, None].astype(np.float32)
        target = None if self.horizon is None else values[:, self.length :]

        def reference(test: Examples) -> dict[str, float]:
            if self.horizon is not None:
                weights = noise_weights(self.coefficients, self.horizon)
                return {"mse": float(self.noise_scale**2 * np.cumsum(np.square(weights)).mean())}
            covariance = toeplitz(autocovariance(self.coefficients, self.noise_scale, self.length))
            return {"nll_nats": float(gaussian_nll(test.x[..., 0], np.zeros(self.length), covariance).mean())}

        examples = Examples(x=values[:, : self.length], target=target)
        return Source("ar", "sequence", examples, reference=reference, scale_target=target is not None)


def noise_weights(coefficients: tuple[float, ...], size: int) -> np.ndarray:
    """psi_0, ..., psi_(size-1) of `x_t = noise_scale sum_j psi_j e_{t-j}`: psi_0 = 1, psi_j = sum_i a_i psi_(j-i)."""
    weights = np.zeros(size)
    weights[:1] = 1
    for lag in range(1, size):
        recent = weights[max(lag - len(coefficients), 0) : lag][::-1]
        weights[lag] = recent @ np.asarray(coefficients[: len(recent)])
    return weights


def autocovariance(coefficients: tuple[float, ...], noise_scale: float, size: int) -> np.ndarray:
    """Covariances of x_t and x_{t-k} in a stationary AR(p) for k = 0, ..., size - 1.

    The first p + 1 solve the Yule-Walker equations `c_k = sum_i a_i c_|k-i| + [k = 0] noise_scale^2`.
    """
    order = len(coefficients)
    equations = np.eye(order + 1)
    for lag in range(order + 1):
        for back, coefficient in enumerate(coefficients, start=1):
            equations[lag, abs(lag - back)] -= coefficient
    known = list(np.linalg.solve(equations, np.eye(order + 1)[0] * noise_scale**2))
    while len(known) < size:
        known.append(sum(coefficient * known[-back] for back, coefficient in enumerate(coefficients, start=1)))
    return np.asarray(known[:size])


@recipe
class Drawn(Generated):
    """A task whose rows are cheap to draw: with `fresh`, a program draws every training batch anew.

    Validation and test rows are those of `data_seed`, whatever the seed of a run. A subclass says how rows are drawn.

    Attributes:
      scaling: a draw gives what models see, so nothing is scaled.
      length: number of steps, or what the subclass says.
      fresh: draw every training batch anew; false trains on the fixed training rows.
    """

    scaling: Literal["none"]
    length: Size
    fresh: bool

    def sample(self, size: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`size` rows: x [B, T, C] float32 and target; traced."""
        raise NotImplementedError(f"{type(self).__name__} does not say how rows are drawn")

    def draw(self, batch: Examples, key: jax.Array) -> Examples:
        """New rows in place of those of the batch; they depend on its size and on the key alone."""
        x, target = self.sample(len(batch), key)
        return dataclasses.replace(batch, x=x, target=target)

    def fixed(self, name: str, reference: dict[str, float]) -> Source:
        """The rows of `data_seed`, with the known values of the task."""
        key = jax.random.key(self.data_seed, impl="threefry2x32")
        x, target = jax.jit(self.sample, static_argnums=0)(self.rows, key)
        examples = Examples(x=np.array(x), target=np.array(target))
        return Source(name, "sequence", examples, reference=lambda test: reference, draw=self if self.fresh else None)


@recipe
class Adding(Drawn):
    """The adding problem: the sum of two marked numbers of a sequence (Hochreiter and Schmidhuber, 1997, section 5.4).

    x [rows, length, 2] float32: numbers ~ U[0, 1), and markers that are 1 at one step of the first half and at one of
    the second, else 0; target [rows, 1] float32, the sum of the two numbers. Always answering 1 has the expected error
    1/6, the variance of the sum: the reference `constant_mse`, which a model must beat to have learned anything. (Bai,
    Kolter, Koltun, 2018, arXiv:1803.01271, mark any two different steps.)
    """

    def validate(self) -> None:
        """Refuse sequences without two halves."""
        super().validate()
        if self.length < 2:
            raise ConfigError("length", self.length, "expected 2 steps or more")

    def sample(self, size: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`size` rows: x [B, T, 2] and target [B, 1]."""
        numbers_key, first_key, second_key = jax.random.split(key, 3)
        half = self.length // 2
        numbers = jax.random.uniform(numbers_key, (size, self.length))
        first = jax.random.randint(first_key, (size, 1), 0, half)
        second = jax.random.randint(second_key, (size, 1), half, self.length)
        steps = jnp.arange(self.length)[None, :]
        markers = ((steps == first) | (steps == second)).astype(jnp.float32)
        return jnp.stack([numbers, markers], axis=-1), (numbers * markers).sum(axis=1, keepdims=True)

    def stored(self) -> Source:
        """The fixed rows."""
        return self.fixed("adding", {"constant_mse": 1 / 6})


@recipe
class Copy(Drawn):
    """Copy memory: repeat ten symbols after a long blank (Arjovsky, Shah, Bengio, 2016, arXiv:1511.06464).

    With T = length, in the form of Bai, Kolter and Koltun (2018, arXiv:1803.01271): ten symbols ~ U{1..8}, T - 1 blanks
    (0), and eleven delimiters (9). x [rows, T + 20, 10] float32 is their one-hot code; target [rows, T + 20] int32 is 0
    for T + 10 steps and then the ten symbols. The best answer without memory has the expected cross-entropy
    `10 log(8) / (T + 20)` nats per step: the reference `memoryless_nats_per_step`, which a model must beat.

    Attributes:
      length: T of the papers; a symbol comes back T + 10 steps after it was seen.
    """

    def sample(self, size: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`size` rows: x [B, T + 20, 10] and target [B, T + 20]."""
        symbols = jax.random.randint(key, (size, SYMBOLS), 1, KINDS + 1)
        blanks = jnp.full((size, self.length - 1), BLANK, symbols.dtype)
        delimiters = jnp.full((size, SYMBOLS + 1), DELIMITER, symbols.dtype)
        shown = jnp.concatenate([symbols, blanks, delimiters], axis=1)
        silence = jnp.full((size, self.length + SYMBOLS), BLANK, symbols.dtype)
        return jax.nn.one_hot(shown, CLASSES), jnp.concatenate([silence, symbols], axis=1).astype(jnp.int32)

    def stored(self) -> Source:
        """The fixed rows."""
        return self.fixed("copy", {"memoryless_nats_per_step": SYMBOLS * float(np.log(KINDS)) / (self.length + 20)})
