"""What every fit returns: an approximate posterior, and what it predicts (chapters 3 and 4).

A family adds what is its own, the moments, the draws and the arrays of its file: the rest is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from . import checks, storage
from .averages import expected_entropy, expected_softmax
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
    plain family, and only that has `q`.

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
            If `X` is not a finite real array with M columns.
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

    def marginals(self) -> MeanField:
        """Means and scales of the single weights, as independent ones."""
        return MeanField.with_scale(self.mean, self.scale)

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
        # Unit vectors as inputs: their logits are the weights, but for what is common to a row.
        mean, var = self.logit_moments(np.eye(len(self.mean)))
        D = mean.shape[1]
        var = var * (1 - 2 / D) + var.sum(axis=1, keepdims=True) / D**2
        return mean - mean.mean(axis=1, keepdims=True), np.sqrt(var)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities averaged over the posterior, shape (N, D).

        The average is over the Gaussian logits, not over draws of the weights, and as exact as
        `expected_softmax`: within 1e-6. Parameters and errors are those of `logit_moments`.
        """
        return expected_softmax(*self.logit_moments(X))[1]

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of each row, shape (N,). Parameters as `logit_moments`."""
        return self.predict_proba(X).argmax(axis=1)

    def uncertainty(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Split the entropy of each prediction into noise and ignorance, :eq:`eq-entropy-split`.

        Parameters and errors are those of `logit_moments`.

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
        draws = self.sample(n, rng)
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise ImportError('to_arviz needs ArviZ: pip install "vilogit[arviz]"') from error
        return from_dict({"posterior": {"W": draws[None]}}, dims={"W": ["feature", "class"]})

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
        arrays = dict(zip(self.parts, self.arrays(), strict=True))
        trace = np.reshape(self.trace, (-1, 2)).astype(np.float64)
        storage.write(path, family=self.family, elbo=self.elbo, gap=self.gap, trace=trace, **arrays)


@dataclass(frozen=True)
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

    def logit_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the logits, :eq:`eq-logit-moments`; see `Posterior`."""
        return logit_moments(self.q, checks.array(X, "X", ("N", len(self.mean))))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` weight matrices from q, shape (n, M, D); errors as in `Posterior.sample`."""
        n = checks.size(n, "n", at_least=0)
        checks.rng(rng)
        return self.mean + self.scale * rng.standard_normal((n, *self.mean.shape))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Means and unconstrained scales, (M, D) each."""
        return self.q

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray], **rest: Any) -> Self:
        """Check means and unconstrained scales, and turn them into a posterior."""
        mean = checks.array(arrays[0], "mean", ("M", "D"))
        return cls(MeanField(mean, checks.array(arrays[1], "rho", mean.shape)), **rest)
