"""A Gaussian process for masks: linear, pairwise and Hamming kernels, and the exact expected hypervolume improvement.

Linear and pairwise terms hold what groups add on their own and two at a time, the Hamming kernel the rest. Their
variances and the noise are what makes the seen values most likely, so that a proposal takes milliseconds. A hint is a
number for each mask that may say something of its value; how much is one more variance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

Floats = NDArray[np.float64]
DECAY = 4.0
"""The Hamming kernel has fallen to exp(-DECAY) where two masks differ in every place."""
USUAL = (0.6, 0.2, 0.1)
"""Variances of the linear, pairwise and Hamming parts, as expected before anything is seen."""
HINTED, NOISE = 0.6, 0.1
"""The same of a part along a hint, where there are hints, and of the noise."""
SPREAD = 1.5
"""Standard deviation of that expectation."""


def kernels(first: Floats, second: Floats) -> Floats:
    """`(3, N, M)` linear, pairwise and Hamming kernels of rows with places in -1 to 1, each 1 on masks' diagonal."""
    count = first.shape[1]
    products = first @ second.T
    pairs = (products**2 - (first**2) @ (second**2).T) / max(1, count * (count - 1))
    distance = np.abs(first[:, None] - second[None]).sum(-1) / (2 * count)
    return np.stack([products / count, pairs, np.exp(-DECAY * distance)])


@dataclass(frozen=True)
class Fitted:
    """A Gaussian process given values.

    Attributes:
        places: `(N, D)` where it was fitted.
        hints: `(N,)`, or None.
        variances: `(3,)` of the kernels, `(4,)` with hints.
        solved: `(N,)` the inverse covariance times the standardised values.
        root: the covariance's Cholesky factor.
    """

    places: Floats
    hints: Floats | None
    variances: Floats
    solved: Floats
    root: Floats
    mean: float
    scale: float

    def at(self, places: Floats, hints: Floats | None = None) -> tuple[Floats, Floats]:
        """Mean and standard deviation, `(M,)` each, at `(M, D)` places, without noise; with hints where it has them."""
        between = np.tensordot(self.variances, hinted_kernels(places, self.places, hints, self.hints), 1)
        explained = solve_triangular(self.root, between.T, lower=True)
        prior = self._prior(places, hints)
        spread = np.sqrt(np.maximum(prior - (explained**2).sum(0), 1e-10))
        return self.mean + self.scale * (between @ self.solved), self.scale * spread

    def _prior(self, places: Floats, hints: Floats | None) -> Floats:
        squares, count = (places**2).sum(1), places.shape[1]
        pairs = (squares**2 - (places**4).sum(1)) / max(1, count * (count - 1))
        parts = [squares / count, pairs, np.ones(len(places))]
        return np.stack(parts if hints is None else [*parts, hints**2], axis=1) @ self.variances


def hinted_kernels(first: Floats, second: Floats, one: Floats | None, other: Floats | None) -> Floats:
    """`kernels`, and the product of the hints where there are hints."""
    plain = kernels(first, second)
    return plain if one is None or other is None else np.concatenate([plain, np.outer(one, other)[None]])


def fit(places: Floats, values: Floats, hints: Floats | None = None) -> Fitted:
    """A process through `(N,)` values at `(N, D)` places, its variances the most likely ones.

    Args:
        hints: `(N,)` of about zero mean and unit variance over the space.
    """
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    target = (values - mean) / scale
    parts = np.concatenate([hinted_kernels(places, places, hints, hints), np.eye(len(places))[None]])
    usual = np.log((*USUAL, *(() if hints is None else (HINTED,)), NOISE))

    def cost(logs: Floats) -> tuple[float, Floats]:
        variances = np.exp(logs)
        factor = cho_factor(np.tensordot(variances, parts, 1) + 1e-8 * np.eye(len(target)), lower=True)
        solved = cho_solve(factor, target)
        inverse = cho_solve(factor, np.eye(len(target)))
        half_log = float(np.log(np.diag(factor[0])).sum())
        outside = (logs - usual) / SPREAD
        slope = 0.5 * variances * ((inverse - np.outer(solved, solved)) * parts).sum((1, 2))
        return 0.5 * float(target @ solved) + half_log + 0.5 * float(outside @ outside), slope + outside / SPREAD

    found = minimize(cost, usual, jac=True, method="L-BFGS-B", bounds=[(-9.0, 3.0)] * len(usual))
    variances = np.exp(found.x)
    factor = cho_factor(np.tensordot(variances, parts, 1) + 1e-8 * np.eye(len(target)), lower=True)
    return Fitted(places, hints, variances[:-1], cho_solve(factor, target), np.tril(factor[0]), mean, scale)


def below(bound: Floats, mean: Floats, spread: Floats) -> Floats:
    """Expectation of how far a normal variable lies below a bound, and zero where above; arguments broadcast."""
    height = (bound - mean) / spread
    density = np.exp(-0.5 * height**2) / np.sqrt(2 * np.pi)
    return np.where(
        np.isneginf(bound), 0.0, spread * density + np.where(np.isneginf(bound), 0.0, bound - mean) * ndtr(height)
    )


def expected_improvement(mean: Floats, spread: Floats, front: Floats, reference: Floats) -> Floats:
    """`(N,)` expected gain in hypervolume of two independent normal objectives to be minimised.

    Args:
        mean, spread: `(N, 2)`.
        front: `(K, 2)`, sorted by its first column, no row dominated, all below the reference `(2,)`.

    Source: the sum over the strips that the front cuts, as in Emmerich et al. 2011 (Hypervolume-based expected
        improvement: monotonicity properties and exact computation).
    """
    left = np.concatenate([[-np.inf], front[:, 0]])
    right = np.concatenate([front[:, 0], reference[:1]])
    top = np.concatenate([reference[1:], front[:, 1]])
    first, first_spread = mean[:, :1], spread[:, :1]
    width = below(right, first, first_spread) - below(left, first, first_spread)
    return (width * below(top, mean[:, 1:], spread[:, 1:])).sum(axis=1)
