"""Independent ways to compute what vilogit computes; none of them imports it."""

import mpmath
import numpy as np
from scipy import optimize, special


def directional_derivative(f, x, direction, step=1e-4):
    """Five-point central difference of a function of one array; error O(step^4)."""
    values = [f(x + k * step * direction) for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


def gaussian_rule(n_nodes, reach):
    """Nodes and weights of the dense trapezium rule for averages over a standard normal."""
    nodes = np.linspace(-reach, reach, n_nodes)
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


def tensor_expectations(mean, var, n_nodes=41, reach=8.0):
    """Average LSE, softmax and softmax (1 - softmax) over one row by a full tensor rule."""
    mean, var = np.asarray(mean), np.asarray(var)
    nodes, weights = gaussian_rule(n_nodes, reach)
    grid = np.meshgrid(*(m + np.sqrt(v) * nodes for m, v in zip(mean, var, strict=True)))
    logits = np.stack([g.ravel() for g in grid], axis=-1)
    w = np.prod(np.meshgrid(*[weights] * len(mean)), axis=0).ravel()
    probs = special.softmax(logits, axis=-1)
    return w @ special.logsumexp(logits, axis=-1), w @ probs, w @ (probs * (1 - probs))


def panel_rule(edges, n_nodes):
    """Gauss-Legendre nodes and weights of every panel between sorted edges, in one row."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


def difference_expectations(mean, var):
    """Average LSE, softmax and softmax (1 - softmax) of two classes, however wide.

    The limit of a wide difference in closed form, and the rest by panels cut at the kink.
    """
    center, scale = mean[1] - mean[0], np.sqrt(np.sum(var))
    x, w = panel_rule(np.linspace(-50, 50, 101), 10)
    w = w * np.exp(-(((x - center) / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))
    z = center / scale
    ramp = center * special.ndtr(z) + scale * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    tail = special.expit(-np.abs(x))
    one = special.ndtr(z) + w @ (-np.sign(x) * tail)
    spread = w @ (tail * (1 - tail))
    lse = mean[0] + ramp + w @ np.log1p(np.exp(-np.abs(x)))
    return lse, np.array([1 - one, one]), np.array([spread, spread])


def log_average_sigmoid(center, var):
    """Logarithm of the average sigmoid of a Gaussian number, by thirty digits and many panels."""
    with mpmath.workdps(30):
        c, v = mpmath.mpf(center), mpmath.mpf(var)
        if not v:
            return float(-mpmath.log1p(mpmath.exp(-c)))

        def log_integrand(x):
            return -mpmath.log1p(mpmath.exp(-x)) - (x - c) ** 2 / (2 * v)

        # It has one peak, between those of its two factors, and is no flatter than the second.
        low, high = c, c + v
        for _ in range(120):
            peak = (low + high) / 2
            rising = 1 / (1 + mpmath.exp(peak)) > (peak - c) / v
            low, high = (peak, high) if rising else (low, peak)
        edges = {peak + k * mpmath.sqrt(v) for k in range(-10, 11, 2)}
        bends = [0, *(sign * mpmath.mpf(3) ** k for k in range(1, 20) for sign in (-1, 1))]
        edges |= {x for x in bends if min(edges) < x < max(edges)}
        total = mpmath.quad(
            lambda x: mpmath.exp(log_integrand(x) - log_integrand(peak)), sorted(edges),
            method="gauss-legendre", maxdegree=3,
        )  # fmt: skip
        return float(log_integrand(peak) + mpmath.log(total / mpmath.sqrt(2 * mpmath.pi * v)))


def log_average_softmax(mean, var):
    """Logarithm of the average probability of the first of three classes, up to a width of 30.

    A trapezium rule around the peak, over the differences to the first logit, in logarithms.
    """
    center, cov = mean[1:] - mean[0], np.diag(var[1:]) + var[0]
    precision = np.linalg.inv(cov)

    def minus_log(x):
        away = x - center[:, None]
        return np.logaddexp(0, np.logaddexp(*x)) + np.sum(away * (precision @ away), axis=0) / 2

    peak = optimize.minimize(lambda x: minus_log(x[:, None])[0], center, tol=1e-9).x
    # The Gaussian alone falls as fast on either side.
    axes = [
        p + np.sqrt(v) * np.linspace(-8, 8, 601) for p, v in zip(peak, np.diag(cov), strict=True)
    ]
    values = -minus_log(np.stack([x.ravel() for x in np.meshgrid(*axes)]))
    cell = np.prod([x[1] - x[0] for x in axes])
    norm = np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] / 2
    return special.logsumexp(values) + np.log(cell) - norm


def score_cdf(above, scale):
    """Cdf and density of a logit with Gumbel noise, so far above its mean.

    A dense trapezium rule over the noise, or, of a narrow logit, over the logit.
    """
    if scale < 1:
        nodes, weights = gaussian_rule(801, 9)
        t = np.exp(np.minimum(scale * nodes - above[:, None], 700))
        return np.exp(-t) @ weights, (t * np.exp(-t)) @ weights
    noise = np.arange(-5, 40, 1 / 8)
    weights = np.exp(-noise - np.exp(-noise)) / 8
    z = (above[:, None] - noise) / scale
    density = np.exp(-(z**2) / 2) / (scale * np.sqrt(2 * np.pi))
    return special.ndtr(z) @ weights, density @ weights


def race_expectations(mean, var):
    """Average LSE, softmax and softmax (1 - softmax) over one row of classes, however wide.

    The highest score, a logit with Gumbel noise, belongs to a class with its probability and is
    Euler's constant above LSE on average.
    """
    mean, scale = np.asarray(mean), np.sqrt(var)
    steps = np.maximum(scale, 1)
    ends = [np.arange(m - 9 * s - 5, m + 9 * s + 46, h)
            for m, s, h in zip(mean, scale, steps, strict=True)]  # fmt: skip
    edges = np.unique(np.concatenate(ends))
    edges = edges[edges >= max(end[0] for end in ends)]
    u, w = panel_rule(edges, 10)
    cdf, density = np.array(
        [score_cdf(u - m, s) for m, s in zip(mean, scale, strict=True)]
    ).swapaxes(0, 1)
    others = np.array([np.delete(cdf, d, 0).prod(axis=0) for d in range(len(mean))])
    D = range(len(mean))
    second = np.array(
        [sum(density[e] * np.delete(cdf, [d, e], 0).prod(axis=0) for e in D if e != d) for d in D]
    )
    lse = edges[-1] - w @ cdf.prod(axis=0) - np.euler_gamma
    return lse, (density * others) @ w, (density * second) @ w


def elbo(mean, scale, X, Y, precision=1.0, n_nodes=41):
    """ELBO of a diagonal Gaussian, the expectation by tensor quadrature row by row."""
    likelihood = np.sum(Y * (X @ mean))
    for m, v in zip(X @ mean, X**2 @ scale**2, strict=True):
        likelihood -= tensor_expectations(m, v, n_nodes)[0]
    precision = np.broadcast_to(np.asarray(precision, float), X.shape[1])[:, None]
    kl = precision * (mean**2 + scale**2) - 1 - np.log(precision * scale**2)
    return likelihood - kl.sum() / 2


def optimum(X, Y, precision=1.0, n_nodes=21):
    """Best ELBO over diagonal Gaussians: tensor quadrature and SciPy's BFGS."""
    shape = (X.shape[1], Y.shape[1])
    precision = np.broadcast_to(np.asarray(precision, float), shape[0])[:, None]
    nodes, weights = gaussian_rule(n_nodes, 6)
    z = np.stack([g.ravel() for g in np.meshgrid(*[nodes] * shape[1])], axis=-1)
    w = np.prod(np.meshgrid(*[weights] * shape[1]), axis=0).ravel()

    def negative(theta):
        mean, log_scale = theta.reshape(2, *shape)
        scale = np.exp(log_scale)
        m, s = X @ mean, np.sqrt(X**2 @ scale**2)
        logits = m[:, None, :] + s[:, None, :] * z
        lse = special.logsumexp(logits, axis=2)
        probs = np.exp(logits - lse[..., None])
        kl = precision * (mean**2 + scale**2) - 1 - np.log(precision) - 2 * log_scale
        value = np.sum(lse @ w) - np.sum(Y * m) + kl.sum() / 2
        mean_probs = np.einsum("q,nqd->nd", w, probs)
        spread = np.einsum("q,nqd->nd", w, probs * (1 - probs))
        slope_mean = X.T @ (mean_probs - Y) + precision * mean
        slope_log_scale = scale**2 * ((X**2).T @ spread + precision) - 1
        return value, np.concatenate([slope_mean.ravel(), slope_log_scale.ravel()])

    result = optimize.minimize(
        negative, np.zeros(2 * shape[0] * shape[1]), jac=True, options={"gtol": 1e-6}
    )
    mean, log_scale = result.x.reshape(2, *shape)
    return -result.fun, mean, np.exp(log_scale)
