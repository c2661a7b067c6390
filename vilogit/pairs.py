"""Second derivatives of the averaged log-sum-exp, which are averages over pairs (chapters 5, 8)."""

from typing import NamedTuple

import numpy as np

from .softmax import softmax
from .wide import hazards, known


class Pairs(NamedTuple):
    """Second derivatives of the averaged log-sum-exp of rows, (n, D, D) each.

    In means d and e, in a mean d and a variance e, in variances d and e.
    """

    mm: np.ndarray
    mv: np.ndarray
    vv: np.ndarray


def pair_averages(mean: np.ndarray, var: np.ndarray, accuracy: float) -> Pairs:
    """Average over independent Gaussian logits of any width.

    Parameters
    ----------
    mean, var : ndarray, shape (n, D)
        Means and variances of the logits.
    accuracy : float
        Error to expect of derivatives in two means, give or take. Those in variances have a digit
        or two less; rows with small variances, whose logits they hardly move, half the digits.
    """
    # The expansion is off by the square of the variance, or less.
    narrow = var.max(axis=1, initial=0) <= np.sqrt(accuracy)
    if narrow.all():
        return _expansion(mean, var)
    wide = ~narrow
    found = _over_scores(mean[wide], var[wide], accuracy)
    if wide.all():
        return found
    out = Pairs(*np.empty((3, *mean.shape, mean.shape[1])))
    for whole, some, rest in zip(out, found, _expansion(mean[narrow], var[narrow]), strict=True):
        whole[wide], whole[narrow] = some, rest
    return out


def _over_scores(mean: np.ndarray, var: np.ndarray, accuracy: float) -> Pairs:
    """Integrate over the highest score: each derivative touches one cdf, :eq:`eq-pair-slopes`."""
    mean = mean - mean.max(axis=1, keepdims=True)
    scale = known(mean, var)
    digits = np.log(scale.max(initial=1.0) / accuracy) + 1
    _, start, below, (first, second, third) = hazards(mean, scale, digits, 3)
    one = np.eye(mean.shape[1])

    def together(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = np.einsum("pu,pud,pue->pde", below, a, b, optimize=True)
        return np.add.reduceat(pairs, start) * (1 - one)

    # A shift common to all scores changes nothing: so diagonals follow from the rest.
    mm, mv, vv = -together(first, first), together(first, second) / 2, -together(second, second) / 4
    mm -= one * mm.sum(axis=2, keepdims=True)
    mv -= one * mv.sum(axis=1, keepdims=True)
    vv += one * together(third, first).sum(axis=2, keepdims=True) / 4
    return Pairs(mm, mv, vv)


def _expansion(mean: np.ndarray, var: np.ndarray) -> Pairs:
    """Small variances: chapter 1's Jacobian to the first order in them, its slopes as they are.

    Half the variances' Laplacian L has L(fg) = f Lg + g Lf + sum of var f' g'.
    """
    probs, one = softmax(mean), np.eye(mean.shape[1])
    vp = var * probs
    total = np.sum(vp, axis=1, keepdims=True) - 2 * np.sum(vp * probs, axis=1, keepdims=True)
    # Twice what L makes of a probability is this times the probability.
    growth = var - 2 * vp - total
    across = np.sum(vp * probs, axis=1, keepdims=True)
    own = growth / 2 - vp
    factor = 1 + own[:, :, None] + own[:, None, :] + across[:, :, None]
    mm = -(1 - one) * probs[:, :, None] * probs[:, None, :] * factor
    mm -= one * mm.sum(axis=2, keepdims=True)
    # Slope and bend of probability d in logit e.
    away = one - probs[:, None, :]
    slope = probs[:, :, None] * away
    bend = probs[:, :, None] * (away**2 - (probs * (1 - probs))[:, None, :])
    vv = (1 - 2 * probs)[:, :, None] * bend - 2 * slope**2
    return Pairs(mm, bend / 2, vv / 4)
