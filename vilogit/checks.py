"""The checks that every public function makes of its input, each message naming the argument.

=============  ===================  ==============================================
array          shape                meaning
=============  ===================  ==============================================
``X``          (N, M)               inputs; the bias is the last column
``Y``          (N, D)               one-hot labels; ``y`` (N,) holds the integers
``W``          (M, D)               weights, one column per class
``logits``     (N, D)               ``X @ W``
``probs``      (N, D)               ``softmax(logits)``
``mean``       (M, D)               mean of q; so are ``scale`` and ``rho``
=============  ===================  ==============================================

A float32 ``X`` stays float32; every other real array becomes float64.
"""

import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import ArrayLike

_ABSENT = 1000  # classes without a row that a largest label may imply: it is no class beyond that


def array(value: ArrayLike, name: str, shape: tuple, *, finite: bool = True) -> np.ndarray:
    """Return a real array of the expected shape, float32 kept, all else float64.

    Parameters
    ----------
    value : array_like
        What the caller passed.
    name : str
        What the caller calls it; every message starts with it.
    shape : tuple
        One entry a dimension: an int must match, a string (a name such as ``"N"``) need not.
        An Ellipsis in front stands for any leading dimensions.
    finite : bool
        Whether NaN and infinities are errors.

    Raises
    ------
    TypeError
        If the value does not hold real numbers.
    ValueError
        If the shape is wrong or, where `finite`, a value is not.
    """
    values = _real(value, name)
    leading = shape[:1] == (...,)
    wanted = shape[leading:]
    have = values.shape[values.ndim - len(wanted) :] if leading else values.shape
    fits = len(have) == len(wanted) and all(
        isinstance(want, str) or want == n for want, n in zip(wanted, have, strict=True)
    )
    if not fits:
        needed = ", ".join("..." if s is ... else str(s) for s in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{name} has shape {values.shape}; expected ({needed})")
    if finite and not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        at = f" at index {where}" if where else ""
        raise ValueError(f"{name} must be finite, but holds {values[where]}{at}")
    return values


def inputs(X: ArrayLike) -> np.ndarray:
    """Return the inputs of a fit: a finite (N, M) array with at least one row and one column."""
    X = array(X, "X", ("N", "M"))
    if 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}; expected at least one row and one column")
    top = max(X.max(), -X.min())
    if top > largest(X.dtype):
        raise ValueError(f"X holds {top:g}, whose square is too large for {X.dtype}; scale X down")
    return X


def in_units_of_prior(X: np.ndarray, precision: np.ndarray, weight: np.ndarray | None) -> None:
    """Refuse inputs whose squares overflow in units of the prior's standard deviation.

    Of checked arrays, (N, M), (M, 1) and (N,).
    """
    tops = np.maximum(X.max(axis=0), -X.min(axis=0))  # no copy of X, as its absolute would be
    top, of_weight = (tops / np.sqrt(precision[:, 0])).max(), ""
    if weight is not None and weight.max() > 1:
        top, of_weight = top * np.sqrt(weight.max()), " * sqrt(sample_weight)"
    if top > largest(X.dtype):
        what = f"X / sqrt(prior_precision){of_weight} reaches {top:g}, whose square is too large"
        raise ValueError(f"{what} for {X.dtype}; raise prior_precision or scale X down")


def labels(y: ArrayLike, n: int, n_classes: int | None) -> tuple[np.ndarray, int]:
    """Return the labels of a fit's rows as integers, and the number of classes, two at least.

    Called by what the user calls: the warning of `_count_classes` points one frame above that.
    """
    if n_classes is not None:
        n_classes = size(n_classes, "n_classes", at_least=2)
    integers = label_integers(y, n_classes)
    if len(integers) != n:
        raise ValueError(f"y has {len(integers)} labels, but X has {n} rows")
    return integers, _count_classes(integers) if n_classes is None else n_classes


def one_hot(Y: ArrayLike, n: int, n_classes: int | str) -> np.ndarray:
    """Return labels as (n, D) rows of probabilities; one-hot rows are the usual case."""
    Y = array(Y, "Y", (n, n_classes))
    totals = Y.sum(axis=1)
    wrong = (Y < 0).any(axis=1) | (np.abs(totals - 1) > 1e-6)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"Y must have non-negative rows that sum to 1, but row {row} is {Y[row]}")
    return Y


def prior_precision(value: ArrayLike, n_features: int) -> np.ndarray:
    """Return the prior precision as an array that broadcasts over (M, D): () or (M, 1)."""
    precision = _real(value, "prior_precision")
    if precision.ndim == 0:
        return positive(precision, "prior_precision", ())
    return positive(precision, "prior_precision", (n_features,))[:, None]


def weights(value: ArrayLike, X: np.ndarray, name: str = "sample_weight") -> np.ndarray:
    """Return the weights of a fit's rows, (N,): not negative, not all zero, none too large."""
    weight = array(value, name, (len(X),)).astype(np.float64, copy=False)
    if (weight < 0).any():
        where = int((weight < 0).argmax())
        raise ValueError(f"{name}[{where}] is {weight[where]}; expected none below zero")
    where = int(weight.argmax())
    if weight[where] > largest(X.dtype):
        raise ValueError(f"{name}[{where}] is {weight[where]:g}, too large for {X.dtype}")
    if not weight.any():
        raise ValueError(f"{name} is zero in every row; expected one row to count at least")
    return weight


def positive(value: ArrayLike, name: str, shape: tuple) -> np.ndarray:
    """Return a finite array of the given shape with every entry above zero, as float64."""
    values = array(value, name, shape).astype(np.float64)
    if (values <= 0).any():
        raise ValueError(f"{name} must be positive, but holds {values.min()}")
    return values


def level(value: float) -> float:
    """Return the probability of an interval, between 0 and 1."""
    probability = float(positive(value, "level", ()))
    if probability >= 1:
        raise ValueError(f"level must be below 1, not {probability:g}")
    return probability


def size(value: int, name: str, *, at_least: int) -> int:
    """Return an integer that is at least `at_least`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if count < at_least:
        raise ValueError(f"{name} must be at least {at_least}, not {count}")
    return count


def names(value: Iterable[object] | None, name: str, default: Sequence[object]) -> Sequence[object]:
    """Return as many names as the default ones, in their order; of a string, not its letters."""
    if value is None:
        return default
    if isinstance(value, str | bytes | Mapping | Set):
        raise TypeError(f"{name} must be a sequence of names, not {value!r:.80}")
    try:
        found = list(value)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of names, not {value!r}") from None
    if len(found) != len(default):
        raise ValueError(f"{name} has {len(found)} names; expected {len(default)}")
    return found


def rng(value: np.random.Generator) -> None:
    """Refuse anything but a generator: randomness has one source, in the caller's hands."""
    if not isinstance(value, np.random.Generator):
        what = f"rng must be a numpy.random.Generator, not {type(value).__name__}"
        raise TypeError(f"{what}; make one with np.random.default_rng(seed)")


def label_integers(y: ArrayLike, n_classes: int | None) -> np.ndarray:
    """Return labels as integers, (N,): not negative, and below `n_classes` where that is given."""
    labels = _as_array(y, "y")
    if labels.size == 0:
        labels = labels.astype(np.int64)
    if labels.ndim != 1:
        raise ValueError(f"y has shape {labels.shape}; expected (N,)")
    if labels.dtype.kind == "f":
        raise ValueError(f"y must hold integers, not {labels.dtype}")
    if labels.dtype.kind not in "iub":
        raise TypeError(f"y must hold integers, not values of dtype {labels.dtype}")
    top = np.iinfo(np.int64).max if n_classes is None else n_classes - 1
    wrong = (labels < 0) | (labels > top)
    if wrong.any():
        where = int(wrong.argmax())
        upper = "" if n_classes is None else f"..{n_classes - 1}"
        raise ValueError(f"y[{where}] is {labels[where]}; expected a label in 0{upper or '..D-1'}")
    return labels.astype(np.int64)


def largest(dtype: np.dtype) -> float:
    """Largest number whose square, summed over rows, is far from overflow."""
    return np.sqrt(np.finfo(dtype).max) / 1e3


def _count_classes(labels: np.ndarray) -> int:
    """Return how many classes the largest label implies, and warn of those that have no row."""
    n_classes = int(labels.max()) + 1
    if n_classes < 2:
        expected = "expected two classes or more (pass n_classes if some are absent)"
        raise ValueError(f"y holds only class 0; {expected}")
    if n_classes > len(labels) + _ABSENT:
        implied = f"y holds {n_classes - 1}, which implies {n_classes} classes"
        raise ValueError(f"{implied} for {len(labels)} rows; pass n_classes if that is meant")
    absent = np.flatnonzero(np.bincount(labels) == 0)
    if len(absent):
        some = ", ".join(map(str, absent[:5])) + ", ..." * (len(absent) > 5)
        warnings.warn(
            f"y holds labels up to {n_classes - 1}, but none of class {some}; pass "
            f"n_classes={n_classes} if they are meant, or number the classes from 0",
            stacklevel=4,
        )
    return n_classes


def _as_array(value: ArrayLike, name: str) -> np.ndarray:
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries; fill them or leave them out")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array: {error}") from None


def _real(value: ArrayLike, name: str) -> np.ndarray:
    array = _as_array(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, not values of dtype {array.dtype}")
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)
