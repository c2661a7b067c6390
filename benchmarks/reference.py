"""Long NUTS runs (NumPyro) as the reference, with ArviZ's diagnostics.

Sampled are the contrasts that the data see, in coordinates in which Laplace's approximation is
standard normal. The shift, and directions without data, have exactly their prior, independent
of the rest: variances take that part exactly, and raw weights get exact draws of it before
their r-hat and effective sample size are measured.
"""

from __future__ import annotations

from typing import NamedTuple

import arviz
import jax
import jax.numpy as jnp
import numpy as np
from gaussians import SLAB, Seen, laplace
from numpyro.infer import MCMC, NUTS

from vilogit import softmax

ROWS = 20  # inputs, evenly spaced, whose probabilities are diagnosed


class Reference(NamedTuple):
    """What a run says about the posterior.

    Attributes
    ----------
    mean, scale, centred_scale : ndarray, shape (M, D)
        Of the weights, and standard deviation of the weights less their row's mean.
    probs : ndarray, shape (L, D)
        Predictions for the inputs asked for.
    chains, draws : int
        Chains, and draws of all of them together.
    max_r_hat, min_ess : float
        Worst split r-hat (rank-normalised) and bulk effective sample size over raw weights,
        row-centred weights and probabilities.
    max_mcse : float
        Worst Monte Carlo standard error of a predicted probability.
    """

    mean: np.ndarray
    scale: np.ndarray
    centred_scale: np.ndarray
    probs: np.ndarray
    chains: int
    draws: int
    max_r_hat: float
    min_ess: float
    max_mcse: float


def nuts(
    problem: Seen,
    X: np.ndarray,
    draws: int,
    *,
    chains: int = 4,
    warmup: int = 500,
    seed: int = 0,
) -> Reference:
    """Run NUTS.

    Parameters
    ----------
    problem : Seen
        In any axes.
    X : ndarray, shape (L, M)
        Inputs to predict, none with a part in a direction without data.
    draws, chains : int
        Draws to keep, of all chains together.
    warmup : int
        Draws of each chain to leave out.
    seed : int
        Of everything random.
    """
    q = laplace(problem)
    lower = jnp.asarray(np.linalg.cholesky(q.cov))
    centre, shape = jnp.asarray(q.location.ravel()), q.location.shape
    Z, Y, basis = (jnp.asarray(a) for a in (problem.Z, problem.Y, problem.basis))

    def potential(eps):
        v = centre + lower @ eps
        logits = Z @ v.reshape(shape) @ basis.T
        log_likelihood = jnp.sum(Y * logits) - jax.nn.logsumexp(logits, axis=1).sum()
        return jnp.vdot(v, v) / 2 - log_likelihood

    mcmc = MCMC(
        NUTS(potential_fn=potential),
        num_warmup=warmup,
        num_samples=draws // chains,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    # Starts wider than the posterior, so that r-hat can tell chains that have not mixed.
    starts = 1.5 * np.random.default_rng(seed).standard_normal((chains, centre.size))
    mcmc.run(jax.random.key(seed), init_params=jnp.asarray(starts))
    eps = np.asarray(mcmc.get_samples(group_by_chain=True))
    V = (np.asarray(centre) + eps @ np.asarray(lower).T).reshape(chains, -1, *shape)
    return _summary(problem, X @ problem.axes, V, np.random.default_rng(seed))


def _summary(problem: Seen, Z, V: np.ndarray, rng: np.random.Generator) -> Reference:
    chains, each, K, E = V.shape
    axes, basis, precision = problem.axes, problem.basis, problem.precision
    M, D = len(axes), len(basis)
    flat = V.reshape(-1, K, E)
    block = max(1, SLAB // (len(Z) * D))
    probs = np.zeros((len(Z), D))
    for k in range(0, len(flat), block):
        probs += softmax(Z @ flat[k : k + block] @ basis.T).sum(axis=0)
    centred = axes @ V @ basis.T
    var = centred.var(axis=(0, 1)) + problem.unseen * (1 - 1 / D)

    some = softmax(Z[:: max(1, len(Z) // ROWS)] @ V @ basis.T)
    raw = np.sqrt(1 / (precision * D)) * rng.standard_normal((chains, each, M, 1))
    raw = raw + centred
    if K < M:
        unit = 1 / np.sqrt(precision)
        U = axes / unit
        noise = rng.standard_normal((chains, each, M, D))
        raw += unit * (noise - U @ (U.T @ noise)) @ (basis @ basis.T)
    moving = centred.std(axis=(0, 1)) > 0
    values = arviz.convert_to_dataset({"centred": centred[..., moving], "raw": raw, "probs": some})
    r_hat, ess = arviz.rhat(values), arviz.ess(values)
    mcse = arviz.mcse(values[["probs"]])
    return Reference(
        centred.mean(axis=(0, 1)),
        np.sqrt(var + 1 / (precision * D)),
        np.sqrt(var),
        probs / len(flat),
        chains,
        chains * each,
        max(float(r_hat[name].max()) for name in r_hat),
        min(float(ess[name].min()) for name in ess),
        float(mcse["probs"].max()),
    )
