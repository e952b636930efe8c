"""A Gaussian process for masks with four kernels, and what a candidate is expected to add.

Linear and pairwise terms hold what groups add on their own and two at a time, a kernel of sizes what the number of
trained parameters says, and the Hamming kernel the rest. Their variances and the noise are those that make the seen
values most likely. Values are to be minimised, and standardised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import ndtr

Floats = NDArray[np.float64]
DECAY = 4.0
"""The Hamming kernel has fallen to exp(-DECAY) where two masks differ in every place."""
WIDTH = 0.3
"""The kernel of sizes has fallen to exp(-1/2) where they are so far apart."""
USUAL = (0.6, 0.2, 0.1, 0.3)
"""Variances of the linear, pairwise, Hamming and size kernels, as expected before anything is seen."""
NOISE = 0.1
"""The same of the noise."""
LOG_SPREAD = 1.5
"""Standard deviation of that expectation, in logarithms."""
JITTER = 1e-8
LOG_BOUNDS = (-9.0, 3.0)


def kernels(first: Floats, second: Floats) -> Floats:
    """`(3, N, M)` linear, pairwise and Hamming kernels between rows of places.

    Args:
        first: `(N, D)` in -1 to 1; a row of -1 and 1 alone has all three kernels with itself 1.
        second: `(M, D)` likewise.
    """
    count = max(1, first.shape[1])
    products = first @ second.T
    pairs = (products**2 - (first**2) @ (second**2).T) / max(1, count * (count - 1))
    switched = np.all(np.abs(first) == 1, axis=0) & np.all(np.abs(second) == 1, axis=0)
    distance = switched.sum() - first[:, switched] @ second[:, switched].T
    if not switched.all():
        distance = distance + cdist(first[:, ~switched], second[:, ~switched], "cityblock")
    return np.stack([products / count, pairs, np.exp(-DECAY * distance / (2 * count))])


def size_kernel(first: Floats, second: Floats) -> Floats:
    """`(N, M)`: near 1 where `(N,)` and `(M,)` sizes are alike."""
    found: Floats = np.exp(-0.5 * ((first[:, None] - second) / WIDTH) ** 2)
    return found


def own_kernels(places: Floats) -> Floats:
    """`(3, N)` the linear, pairwise and Hamming kernels of each row with itself; that of its size is 1."""
    squares, count = (places**2).sum(axis=1), max(1, places.shape[1])
    pairs = (squares**2 - (places**4).sum(axis=1)) / max(1, count * (count - 1))
    return np.stack([squares / count, pairs, np.ones(len(places))])


def cost(logs: Floats, parts: Floats, values: Floats, usual: Floats) -> tuple[float, Floats]:
    """Negative log posterior of variances, up to a constant, and its gradient.

    Args:
        logs: `(K + 1,)` logarithms of the kernels' variances and of the noise's.
        parts: `(K, N, N)` kernels.
        values: `(N,)`.
        usual: `(K + 1,)` the logarithms' expectation.
    """
    variances, identity = np.exp(logs), np.eye(len(values))
    factor = cho_factor(_covariance(variances, parts), lower=True)
    solved, inverse = cho_solve(factor, values), cho_solve(factor, identity)
    outside = (logs - usual) / LOG_SPREAD
    half_log = float(np.log(np.diag(factor[0])).sum())
    flat = (inverse - np.outer(solved, solved)).ravel()
    slopes = np.append(parts.reshape(len(parts), -1) @ flat, flat[:: len(values) + 1].sum())
    value = 0.5 * float(values @ solved) + half_log + 0.5 * float(outside @ outside)
    return value, 0.5 * variances * slopes + outside / LOG_SPREAD


def likeliest(parts: Floats, values: Floats, usual: tuple[float, ...]) -> Floats:
    """`(K + 1,)` the most likely variances of `(K, N, N)` kernels, and of the noise, given `(N,)` values.

    Args:
        usual: of each kernel, as expected before anything is seen.
    """
    start = np.log((*usual, NOISE))
    bounds = [LOG_BOUNDS] * len(start)
    found = minimize(cost, start, args=(parts, values, start), jac=True, method="L-BFGS-B", bounds=bounds)
    variances: Floats = np.exp(found.x)
    return variances


def _covariance(variances: Floats, parts: Floats) -> Floats:
    mixed = np.tensordot(variances[:-1], parts, 1)
    mixed[np.diag_indices_from(mixed)] += variances[-1] + JITTER
    return mixed


@dataclass(frozen=True)
class Process:
    """A Gaussian process of mean zero, given values.

    Attributes:
        variances: `(K + 1,)` of the kernels, and of the noise.
        solved: `(N,)` the inverse covariance times the values.
        root: `(N, N)` the covariance's lower Cholesky factor.
    """

    variances: Floats
    solved: Floats
    root: Floats

    @classmethod
    def given(cls, variances: Floats, parts: Floats, values: Floats) -> Process:
        """The process with `(N,)` values where its kernels with one another are `(K, N, N)`."""
        factor = cho_factor(_covariance(variances, parts), lower=True)
        return cls(variances, cho_solve(factor, values), np.tril(factor[0]))

    def mean(self, between: Floats) -> Floats:
        """`(M,)` means where the kernels with the values' places are `(K, M, N)`."""
        found: Floats = np.tensordot(self.variances[:-1], between, 1) @ self.solved
        return found

    def at(self, between: Floats, own: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations, `(M,)` each, without noise.

        Args:
            between: `(K, M, N)` kernels with the values' places.
            own: `(K, M)` kernels of each place with itself.
        """
        mixed = np.tensordot(self.variances[:-1], between, 1)
        explained = solve_triangular(self.root, mixed.T, lower=True)
        spread = self.variances[:-1] @ own - (explained**2).sum(axis=0)
        return mixed @ self.solved, np.sqrt(np.maximum(spread, 1e-10))


def below(bound: Floats, mean: Floats, spread: Floats) -> Floats:
    """Expectation of how far a normal variable lies below a bound, and zero where above; arguments broadcast."""
    height = (bound - mean) / spread
    density = np.exp(-0.5 * height**2) / np.sqrt(2 * np.pi)
    found: Floats = spread * (density + height * ndtr(height))
    return found


def expected_improvement(mean: Floats, spread: Floats, front: Floats, reference: Floats) -> Floats:
    """`(N,)` expected gain in hypervolume of one or two independent normal objectives to be minimised.

    Args:
        mean: `(N, M)`, M 1 or 2.
        spread: `(N, M)`, positive.
        front: `(K, M)`, sorted by its first column, no row dominated, all below the reference.
        reference: `(M,)`; of one objective only the front counts.

    Source: one objective, Jones et al. 1998 (10.1023/A:1008306431147), eq. 15. Two: the sum over the strips that the
        front cuts, as in Emmerich et al. 2011 (10.1109/CEC.2011.5949880).
    """
    if mean.shape[1] == 1:
        return below(front[0], mean[:, 0], spread[:, 0])
    edges = np.append(front[:, 0], reference[0])
    under = below(edges, mean[:, :1], spread[:, :1])
    width = np.diff(under, axis=1, prepend=0.0)
    top = np.append(reference[1], front[:, 1])
    found: Floats = (width * below(top, mean[:, 1:], spread[:, 1:])).sum(axis=1)
    return found
