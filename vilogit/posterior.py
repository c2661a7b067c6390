"""What every fit returns: an approximate posterior, and what it predicts (chapters 3 and 4).

A family adds what is its own, the moments, the draws and the arrays of its file: the rest is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from statistics import NormalDist
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks, storage, tables
from .averages import expected_entropy, expected_log_probs, expected_softmax
from .gaussian import MeanField, logit_moments


class ConvergenceWarning(UserWarning):
    """A fit stopped before it reached what it was asked for."""


class Record(NamedTuple):
    """One evaluation of the ELBO in a fit: its value and the proven gap to the optimum, nats."""

    elbo: float
    gap: float


class State(NamedTuple):
    """What the callback of a fit sees.

    Attributes
    ----------
    step : int
        `fit_sgd`: updates made so far; 0 is the random start. `fit`: evaluations made so far.
    q : MeanField
        The approximation there.
    elbo : float
        Its ELBO in nats; for `fit_sgd` a noisy estimate from one draw.
    gap : float
        Proven bound on the distance to the optimum in nats; NaN for `fit_sgd`.
    """

    step: int
    q: MeanField
    elbo: float
    gap: float = np.nan


class Posterior(ABC):
    """An approximate posterior over the weights, and what it predicts.

    Every family has its own class. ``Posterior(q, elbo, trace=(), gap=nan)`` makes one of the
    plain family, and only that has `q`. Two are equal where they are of one family and hold the
    same numbers, NaN included, and equal ones have the same hash, which their arrays do not enter.

    Attributes
    ----------
    q : MeanField
        The Gaussian that was fitted, where the weights are independent.
    elbo : float
        Evidence lower bound in nats, by quadrature; higher is better.
    trace : sequence of Record
        One record for each evaluation of the ELBO in the fit.
    gap : float
        Proven bound on the distance of `elbo` to the optimum, :eq:`eq-gap`, in nats; NaN where
        nothing was proven.
    """

    elbo: float
    trace: Sequence[Record]
    gap: float

    #: What `fit` and files call the family, and the names of the arrays that make one up.
    family: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]

    def __new__(cls, *fields: object, **named: object) -> Any:
        """Make one of the plain family where none is named, as a path is of its system's kind."""
        return super().__new__(MeanFieldPosterior if cls is Posterior else cls)

    @property
    @abstractmethod
    def mean(self) -> np.ndarray:
        """Means of the weights, shape (M, D)."""

    @property
    @abstractmethod
    def scale(self) -> np.ndarray:
        """Standard deviations of the weights, shape (M, D)."""

    @abstractmethod
    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of independent logits with the same probabilities.

        Parameters
        ----------
        X : array_like, shape (N, M)
            Inputs, bias included.

        Returns
        -------
        mean, variance : ndarray, shape (N, D)
            Of independent Gaussian logits.

        Raises
        ------
        TypeError, ValueError
            If `X` is not a finite real array with M columns, or if there are no such logits:
            those of full rank are correlated, and with three classes or more that shows.
        """

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices, shape (n, M, D).

        Raises
        ------
        TypeError, ValueError
            If `n` is not a non-negative integer or `rng` is not a generator.
        """

    @abstractmethod
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the arrays that make up the family's member, in the order of `parts`."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray], **rest: Any) -> Self:
        """Check arrays, as if a user had typed them in, and turn them into a posterior."""

    @abstractmethod
    def around(self, mean: np.ndarray) -> Self:
        """Return the same Gaussian around other means, (M, D), as a start for `fit`.

        Nothing is known of its ELBO: that is NaN. The means are taken as they come, but for
        directions that the family has no place for.
        """

    def marginals(self) -> MeanField:
        """Means and scales of the single weights, as independent ones."""
        return MeanField.with_scale(self.mean, self.scale)

    def weight_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of independent weights with the same differences, (M, D) each.

        They differ from the weights by what is common to a row's classes. A family says it in
        closed form where it can: unit vectors as inputs take memory in the square of M. Errors
        are those of `logit_moments`.
        """
        return self.logit_moments(np.eye(len(self.mean)))

    def centred_logits(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the logits, (N, D) each, less their row's mean over the classes.

        Parameters and errors are those of `predict_proba`.
        """
        return _centred(*self.logit_moments(X))

    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and scales of the weights, each less its row's mean over the classes.

        No probability depends on what is common to the classes, and no data tell it: centred
        weights are what the data determine.

        Returns
        -------
        mean, scale : ndarray, shape (M, D)
            Every row of the means sums to zero.

        Notes
        -----
        Where the weights of a row have the variances v, that of a centred one is
        ``v[d] * (1 - 2 / D) + v.sum() / D**2``.
        """
        mean, var = _centred(*self.weight_moments())
        return mean, np.sqrt(var)

    def summary(
        self, *, feature_names: Iterable[object] | None = None,
        class_names: Iterable[object] | None = None, level: float = 0.9,
    ) -> Any:  # fmt: skip
        """Tabulate what the data determine: `centred` weights, of two classes the log odds.

        Parameters
        ----------
        feature_names, class_names : iterable, optional
            M and D names; by default ``x0``, ``x1``, ... and the classes' numbers.
        level : float
            Probability of the central interval; between 0 and 1.

        Returns
        -------
        pandas.DataFrame
            One row for each feature and class, with the columns ``mean``, ``sd`` and the
            interval's ends, such as ``5%`` and ``95%``. Of two classes, one row for each feature:
            weights of class 1 less those of class 0, as ``1 - 0`` says. Without pandas, the same
            table as a string.

        Raises
        ------
        TypeError, ValueError
            If there are more or fewer names than weights, or `level` is out of range.

        Notes
        -----
        A centred weight is Gaussian under q, so the ends are quantiles of a Gaussian.
        """
        return summarise(
            *self.centred(), feature_names=feature_names, class_names=class_names, level=level
        )

    def __repr__(self) -> str:
        M, D = self.mean.shape
        return f"{type(self).__name__}({M=}, {D=}, elbo={self.elbo:.6g}, gap={self.gap:.2g})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{tables.html(self.summary())}"

    def __eq__(self, other: object) -> bool:
        """Whether both are of one family and hold the same numbers; NaN equals NaN."""
        if not isinstance(other, Posterior):
            return NotImplemented
        if type(self) is not type(other):
            return False
        mine, others = self._content().values(), other._content().values()
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, others, strict=True))

    def __hash__(self) -> int:
        """Of what nobody can change: arrays could be written to."""
        return hash((self.family, self.elbo if self.elbo == self.elbo else None))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, shape (N, D).

        The average is over the Gaussian logits, not over draws of the weights, and as exact as
        `expected_softmax`: within 1e-6; that of full rank says where it is not.

        Parameters
        ----------
        X : array_like, shape (N, M)
            Inputs, bias included.

        Raises
        ------
        TypeError, ValueError
            If `X` is not a finite real array with M columns.
        """
        moments = self.logit_moments(X)
        if moments[0].shape[1] == 2:
            return np.exp(expected_log_probs(*moments))
        return expected_softmax(*moments).probs

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Logarithms of `predict_proba`, shape (N, D), at most zero.

        However small a probability is, also where it underflows, its logarithm is exact to 1e-9
        with two classes, and to 1e-4 or better with up to a hundred. With more than that, a
        probability far below 1e-9 has no digits, and its logarithm none. Parameters and errors
        are those of `predict_proba`.
        """
        return expected_log_probs(*self.logit_moments(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of each row, shape (N,). Parameters as `predict_proba`."""
        return self.predict_proba(X).argmax(axis=1)

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split the entropy of each prediction into noise and ignorance, :eq:`eq-entropy-split`.

        Parameters and errors are those of `predict_proba`.

        Returns
        -------
        total : ndarray, shape (N,)
            Entropy of the predicted probabilities, in nats.
        aleatoric : ndarray, shape (N,)
            Average entropy of the probabilities under q: what no data could remove.
        epistemic : ndarray, shape (N,)
            Their difference, the mutual information of label and weights; not negative.
        """
        total, aleatoric = expected_entropy(*self.logit_moments(X))
        return total, aleatoric, total - aleatoric

    def to_arviz(self, n: int, rng: np.random.Generator) -> object:
        """Draw `n` weight matrices for ArviZ; errors as in `sample`.

        Returns
        -------
        object
            An ``xarray.DataTree`` with ``posterior["W"]``, of dimensions chain (one), draw,
            feature and class.

        Raises
        ------
        ImportError
            If ArviZ is not there: ``pip install "vilogit[arviz]"``.
        """
        return for_arviz({"W": self.sample(n, rng)}, {"W": ["feature", "class"]})

    def save(self, path: storage.File) -> None:
        """Write the posterior to one ``.npz`` file without pickle, for `vilogit.load`.

        Parameters
        ----------
        path : str, path-like object or binary file
            Where to. A file that is there already keeps its mode and is replaced in one step,
            behind a symbolic link, too: whatever interrupts the writing, the old file or the new
            one is there. To a file that is open, `save` writes where it stands.

        Raises
        ------
        OSError
            If the file cannot be written, or what has its name is no regular file.
        TypeError
            If `path` is none of these.
        """
        storage.write(path, family=self.family, **self._content())

    def _content(self) -> dict[str, Any]:
        """Return what a file holds of a member of the family, and what equal ones share."""
        arrays = dict(zip(self.parts, self.arrays(), strict=True))
        trace = np.reshape(self.trace, (-1, 2)).astype(np.float64)
        return {"elbo": self.elbo, "gap": self.gap, "trace": trace, **arrays}


@dataclass(frozen=True, eq=False, repr=False)
class MeanFieldPosterior(Posterior):
    """A posterior whose weights are independent (chapter 3); `q` holds it all."""

    q: MeanField
    elbo: float
    trace: Sequence[Record] = ()
    gap: float = np.nan

    family = "mean-field"
    parts = ("mean", "rho")

    @property
    def mean(self) -> np.ndarray:
        """Means of the weights, shape (M, D)."""
        return self.q.mean

    @property
    def scale(self) -> np.ndarray:
        """Standard deviations of the weights, shape (M, D)."""
        return self.q.scale

    def weight_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the weights; see `Posterior`."""
        return self.mean, self.scale**2

    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the logits, :eq:`eq-logit-moments`; see `Posterior`."""
        return logit_moments(self.q, checks.array(X, "X", ("N", len(self.mean))))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices from q, shape (n, M, D); errors as in `Posterior.sample`."""
        n = checks.size(n, "n", at_least=0)
        checks.rng(rng)
        return self.mean + self.scale * rng.standard_normal((n, *self.mean.shape))

    def around(self, mean: np.ndarray) -> Self:
        """Return the same Gaussian around other means; see `Posterior`."""
        return replace(self, q=MeanField(mean, self.q.rho), elbo=np.nan, trace=(), gap=np.nan)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Means and unconstrained scales, (M, D) each."""
        return self.q

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray], **rest: Any) -> Self:
        """Check means and unconstrained scales, and turn them into a posterior."""
        mean = checks.array(arrays[0], "mean", ("M", "D"))
        return cls(MeanField(mean, checks.array(arrays[1], "rho", mean.shape)), **rest)


def summarise(
    mean: np.ndarray, scale: np.ndarray, *, feature_names: Iterable[object] | None = None,
    class_names: Iterable[object] | None = None, level: float = 0.9,
) -> Any:  # fmt: skip
    """`Posterior.summary` of centred weights with these means and scales, (M, D)."""
    M, D = mean.shape
    features = checks.names(feature_names, "feature_names", [f"x{m}" for m in range(M)])
    classes = checks.names(class_names, "class_names", range(D))
    level = checks.level(level)
    if D == 2:  # the centred weights of a row are opposite
        mean, scale, classes = 2 * mean[:, 1:], 2 * scale[:, 1:], ["{1} - {0}".format(*classes)]
    tail = (1 - level) / 2
    reach = -NormalDist().inv_cdf(tail) * scale
    columns = ["mean", "sd", f"{100 * tail:.10g}%", f"{100 * (1 - tail):.10g}%"]
    values = np.stack([mean, scale, mean - reach, mean + reach], axis=-1).reshape(-1, 4)
    return tables.table(list(product(features, classes)), values, ("feature", "class"), columns)


def _centred(mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of independent numbers, (N, D), each less the mean of its row."""
    D = mean.shape[1]
    var = var * (1 - 2 / D) + var.sum(axis=1, keepdims=True) / D**2
    return mean - mean.mean(axis=1, keepdims=True), var


def for_arviz(
    draws: dict[str, np.ndarray], dims: dict[str, list[str]], coords: dict[str, list] | None = None
) -> object:
    """Turn named draws, which come first, into what ArviZ reads, as one chain."""
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ImportError('to_arviz needs ArviZ: pip install "vilogit[arviz]"') from error
    one_chain = {name: values[None] for name, values in draws.items()}
    return from_dict({"posterior": one_chain}, dims=dims, coords=coords)
