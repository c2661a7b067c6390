"""Variational inference for softmax (multi-class logistic) regression.

One file for each idea, each standing on the ones that CONTRIBUTING draws above it.
"""

from importlib import import_module

from .averages import expected_softmax
from .cross_entropy import cross_entropy, cross_entropy_gradient, cross_entropy_hvp
from .data import Dataset, one_hot, simulate
from .families import load
from .gaussian import MeanField, elbo, kl_to_prior
from .posterior import ConvergenceWarning, Posterior
from .sgd import elbo_and_gradient, fit_sgd
from .softmax import log_softmax, softmax, softmax_jacobian, softmax_jvp
from .solver import fit

__all__ = [
    "ConvergenceWarning", "Dataset", "MeanField", "Posterior", "VariationalLogisticRegression",
    "cross_entropy", "cross_entropy_gradient", "cross_entropy_hvp", "elbo", "elbo_and_gradient",
    "expected_softmax", "fit", "fit_sgd", "flipbook", "kl_to_prior", "load", "log_softmax",
    "one_hot", "picture", "plot_before_after", "plot_class_map", "plot_coefficients", "simulate",
    "softmax", "softmax_jacobian", "softmax_jvp",
]  # fmt: skip

# Matplotlib, ipywidgets and scikit-learn load when what needs them is first asked for.
_LATER = {
    "flipbook": "frames", "picture": "frames", "plot_before_after": "maps",
    "plot_class_map": "maps", "plot_coefficients": "maps",
    "VariationalLogisticRegression": "estimator",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
