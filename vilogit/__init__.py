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

# Readers of the source see what there is; a star at run time gets what can be had.
_NAMES = __all__
del __all__


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    if name == "__all__":
        return [name for name in _NAMES if name not in _LATER or _loads(_LATER[name])]
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "__all__", "__version__"})


def _loads(file: str) -> bool:
    try:
        import_module(f".{file}", __name__)
    except ImportError:
        return False
    return True


def _version() -> str:
    from importlib import metadata  # a fifth of the time that all else takes to load

    try:
        return metadata.version("vilogit")
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"
