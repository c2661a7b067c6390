"""Averages of a probability however small, to a millionth of itself, as logarithms.

The other rules are exact beside one: far below their accuracy nothing is left. With noise a logit
becomes a score, as in `race`; here the cdf of each score keeps its digits in the lower tail, too.
There it is averaged around the logit that most likely explains so low a score, or, where the
logit is wide, over the noise, as in `wide`.
"""

import numpy as np
from numpy.polynomial import legendre

from .wide import NOISE, gumbel_rule, mills

_DIGITS = 16.0  # exp of minus this, 1e-7, is nothing beside an average
_REACH = np.sqrt(2 * _DIGITS)  # standard deviations beyond which a Gaussian is nothing
_STRETCH = 2.5  # length of a stretch of scores, in widths of a score or decays of its cdf
_SCORES, _NOISES = 10, 24  # nodes of a stretch, and of the noise of a wide logit
_OCTAVES = 3  # of widths below `NOISE` that have nodes of their own
_HALVINGS, _NEWTON_STEPS = 50, 6  # for the most likely logits
_ROUNDED = 1e-14  # of its size, to which a score is known, give or take
_FAR, _TINY = 1e300, np.finfo(np.float64).tiny  # nearly the largest and smallest numbers
_SIZE = 1000  # logits at a time, which bring some hundred scores each


def log_average(
    mean: np.ndarray, var: np.ndarray, row: np.ndarray, label: np.ndarray
) -> np.ndarray:
    r"""Logarithms of some averaged probabilities, (n,): each of one class of one row.

    A class wins at the score :math:`u` with the density of its own score there, times the cdfs
    of the others:

    .. math::

        \mathbb E[\alpha_d] = \int F_d'(u) \prod_{e \ne d} F_e(u) \, du.

    Parameters
    ----------
    mean, var : ndarray, shape (N, D)
        Means and variances of independent Gaussian logits.
    row, label : ndarray of int, shape (n,)
        Which classes of which rows, sorted by row.
    """
    with np.errstate(over="ignore"):  # what is so far away has no chance
        mean = np.maximum(mean - mean.max(axis=1, keepdims=True), -_FAR)
        out, size = np.empty(len(row)), max(1, _SIZE // mean.shape[1])
        for k in range(0, len(mean), size):
            some = slice(*np.searchsorted(row, [k, k + size]))
            if some.start < some.stop:
                out[some] = _of_block(mean, var, row[some], label[some])
    return out


def _of_block(mean: np.ndarray, var: np.ndarray, row: np.ndarray, label: np.ndarray) -> np.ndarray:
    row, first, place = np.unique(row, return_index=True, return_inverse=True)
    mean, var = mean[row], var[row]
    n_classes = mean.shape[1]
    moved = mean[place] + np.eye(n_classes)[label] * var[place]
    where, start, length = _stretches(moved, var[place], first, place)
    nodes, weights = legendre.leggauss(int(_SCORES + np.log(n_classes)))
    # In this order a score far out is as exact as one in the middle.
    above = (start[:, None] - mean[where])[:, None]
    above = above + (length[:, None] * (nodes + 1) / 2)[:, :, None]
    var = np.broadcast_to(var[where, None], above.shape)
    cdf = _log_score(above, var, 0)
    terms = _log_score(above, var, 1) - cdf + cdf.sum(axis=2, keepdims=True)
    terms += np.log(length[:, None] * weights / 2)[:, :, None]
    pieces = np.searchsorted(where, np.arange(len(row)))
    top = np.maximum.reduceat(terms.max(axis=1), pieces)
    total = np.add.reduceat(np.exp(terms - top[where, None]).sum(axis=1), pieces)
    return (top + np.log(total))[place, label]


def _stretches(
    mean: np.ndarray, var: np.ndarray, first: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the scores that count into pieces: row, start and length of each.

    A row has several wins to average, each with means of its own; they share the pieces. The
    first win of each row is given, and the row of each.
    """
    p, scale = _most_likely(mean, var), np.sqrt(var)
    mean = mean - p * var
    low = mean - _REACH * scale - np.log(_DIGITS)
    decays = mean + _decays(scale, p) + np.log(mean.shape[1])  # what is left adds up
    rate = np.maximum(p, 1 / _FAR)
    end = mean + np.where(p * scale > _REACH, _REACH * scale, _DIGITS / rate + p * var / 2)
    begin, end = low.max(axis=1), np.minimum(decays.max(axis=1), end.min(axis=1))
    end = np.maximum(end, begin + _ROUNDED * (1 + np.abs(begin)))
    here, last = np.minimum.reduceat(begin, first), np.maximum.reduceat(end, first)
    edges = [here]
    while (here < last).any():
        at = np.maximum(here[place], begin)[:, None]
        # A cdf may be entered by a stretch of its own, and only decays in the end.
        length = np.where(at < decays, np.hypot(scale, 1), 1 / rate)
        length = np.maximum(length, _ROUNDED * np.abs(at))
        stop = np.min(np.maximum(at, low) + _STRETCH * length, axis=1)
        stop = np.where(at[:, 0] < end, stop, np.inf)
        here = np.minimum(np.minimum.reduceat(stop, first), last)
        edges.append(here)
    starts = np.stack(edges, axis=1)
    lengths = np.diff(starts, axis=1)
    row, piece = np.nonzero(lengths)
    return row, starts[row, piece], lengths[row, piece]


def _most_likely(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Probabilities of the most likely logits around means that a win has moved already."""
    D = mean.shape[1]
    low, high = (mean - var).max(axis=1), (mean + np.log(D) - var / D).max(axis=1)
    for _ in range(_HALVINGS):
        middle = low / 2 + high / 2
        more = np.exp(_log_pull(middle[:, None] - mean, var)).sum(axis=1) > 1
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.exp(np.minimum(_log_pull(low[:, None] - mean, var), 0))


def _log_pull(above: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Solve ``ln p + var p = -above``: so many variances down moves the logit that is most likely.

    It is the logit that explains best why its score is no higher.
    """
    var = np.maximum(var, _TINY)
    c = np.log(var) - above
    r = np.where(c > 1, np.log(np.maximum(c, 1)), c)
    for _ in range(_NEWTON_STEPS):  # to r + exp(r) = c, where exp(r) is var p
        r = r - (r + np.exp(r) - c) / (1 + np.exp(r))
    # Where the two are large, their difference has no digits.
    return np.where(r > 0, r - np.log(var), -above - np.exp(r))


def _log_score(above: np.ndarray, var: np.ndarray, order: int) -> np.ndarray:
    """Logarithm of a score's cdf, or of its first derivative, so far above its logit's mean.

    Both average exp(order x - exp(x)) over a Gaussian number x, that by which the logit is above
    the score; moved to where that is largest, its mean becomes ln p, and exp(p x - exp(x)) is left.
    """
    log_p = _log_pull(above - order * var, var)
    p = np.exp(log_p)
    # Where var is large, p must be nearly order to bring the mean here: no digits were left.
    wide = order * var > 1 + np.abs(above)
    move = np.where(wide, (above + log_p) / np.maximum(var, _TINY), order - p)
    factor = _factors(-log_p, np.sqrt(var), p)
    return np.log(np.maximum(factor, _TINY)) + move * (move * var / 2 - above)


def _decays(scale: np.ndarray, p: np.ndarray) -> np.ndarray:
    """How far above its logit's mean a score's factor is a plain exponential."""
    gaussian = np.where(scale > _REACH, _REACH * scale, np.minimum(scale, _REACH) ** 2 / 2)
    return p * scale**2 + gaussian + _DIGITS


def _factors(above: np.ndarray, scale: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Average ``exp(p x - exp(x))`` over x, a Gaussian number around minus `above`."""
    out = np.exp(np.minimum(p * (p * scale**2 / 2 - above), 0))
    octave = np.ceil(np.log2(np.clip(scale / NOISE, 0.5**_OCTAVES, 2)))
    octave[above > _decays(scale, p)] = np.inf
    for each in np.unique(octave[octave <= 1]):
        some = octave == each
        rule = _over_logits if each < 1 else _over_noise
        out[some] = rule(above[some], scale[some], p[some], NOISE * 2**each)
    return out


def _over_logits(above: np.ndarray, scale: np.ndarray, p: np.ndarray, most: float) -> np.ndarray:
    # The trapezium rule for a Gaussian and for a cdf whose spectrum falls as that of Gumbel noise.
    step = 2 * np.pi / (_REACH + 0.5 * _DIGITS * most)
    nodes = step * np.arange(-np.ceil(_REACH / step), np.ceil(_REACH / step) + 1)
    weights = np.exp(-(nodes**2) / 2)
    out = np.zeros_like(above)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        x = node * scale - above
        out += weight * np.exp(p * x - np.exp(x))
    return out


def _over_noise(above: np.ndarray, scale: np.ndarray, p: np.ndarray, _: float) -> np.ndarray:
    # Of exp(p x) over the x below a noise: that makes another Gaussian, cut off there.
    out, shift = np.zeros_like(above), p * scale
    for node, weight in zip(*gumbel_rule(_NOISES), strict=True):
        b = (above - node) / scale
        tail = np.exp(-(b**2) / 2) * mills(np.abs(b - shift)) / np.sqrt(2 * np.pi)
        whole = np.exp(np.minimum(shift * (shift / 2 - b), 0))
        out += weight * np.exp(-p * node) * np.where(b > shift, whole - tail, tail)
    return out
