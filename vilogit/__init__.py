"""Variational inference for softmax (multi-class logistic) regression.

One file for each chapter of the book, each standing on the ones above it.
"""

from .cross_entropy import cross_entropy, cross_entropy_gradient, cross_entropy_hvp
from .data import Dataset, one_hot, simulate
from .expectations import expected_softmax
from .softmax import log_softmax, softmax, softmax_jacobian, softmax_jvp
from .solver import fit
from .storage import load
from .variational import (
    ConvergenceWarning,
    MeanField,
    Posterior,
    elbo,
    elbo_and_gradient,
    fit_sgd,
    kl_to_prior,
)

__all__ = [
    "ConvergenceWarning",
    "Dataset",
    "MeanField",
    "Posterior",
    "VariationalLogisticRegression",
    "cross_entropy",
    "cross_entropy_gradient",
    "cross_entropy_hvp",
    "elbo",
    "elbo_and_gradient",
    "expected_softmax",
    "fit",
    "fit_sgd",
    "flipbook",
    "kl_to_prior",
    "load",
    "log_softmax",
    "one_hot",
    "picture",
    "plot_before_after",
    "plot_class_map",
    "simulate",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
]


def __getattr__(name: str) -> object:
    # Matplotlib and ipywidgets load when a drawing function is first asked for.
    if name in {"flipbook", "picture", "plot_before_after", "plot_class_map"}:
        from . import visualization

        return getattr(visualization, name)
    if name == "VariationalLogisticRegression":  # scikit-learn likewise
        from .estimator import VariationalLogisticRegression

        return VariationalLogisticRegression
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
