"""Other solvers of the same problem behind one small interface, each as fast as it is offered.

Every peer fits the same model, ``W ~ N(0, 1)`` and ``y ~ Categorical(softmax(X @ W))``, with
independent Gaussians, by stochastic gradients. A peer is started with settings and a seed, then
advanced by any number of updates; its state can be read in between. Nothing is compiled twice.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pymc
import pyro
import pytensor
import torch
from jax import lax, random
from numpyro import infer, optim
from pyro.infer.autoguide import AutoDiagonalNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.optim import ClippedAdam
from sets import PRIOR_PRECISION, Problem

import vilogit

torch.set_num_threads(1)
torch.set_num_interop_threads(1)
pyro.enable_validation(False)

#: Adam's rate falls geometrically, by this factor, over the first `horizon` updates.
FINAL_RATE = 0.01
#: What is tuned for the peers with Adam: first a grid of these two, ...
RATES = (0.1, 0.03, 0.3)
HORIZONS = (300, 1000, 4000, 16000)
#: ... then the others one at a time, each kept if it is faster.
FIRST = {"particles": 1, "initial_scale": 0.1}
VARIATIONS = ({"particles": 4}, {"particles": 16}, {"initial_scale": 0.5})


Moments = tuple[np.ndarray, np.ndarray]
Look = Callable[[int, Callable[[], Moments]], int | None]


class Peer(ABC):
    """One solver on one problem.

    Attributes
    ----------
    name : str
        What tables call it.
    compile_seconds : float
        Time from the problem's arrays to a solver that is ready to run, compilation included,
        for the settings that were started last.
    compiled_loop : bool
        Whether stopping to look at the state costs time that a single run does not take.
    """

    name: str
    compile_seconds: float = 0.0
    compiled_loop: bool = False

    def __init__(self, problem: Problem):
        self.problem = problem
        self.shape = problem.X.shape[1], problem.D

    @staticmethod
    def grid() -> list[dict]:
        """Return the settings to try first."""
        return [
            dict(rate=rate, horizon=horizon) | FIRST
            for horizon, rate in itertools.product(HORIZONS, RATES)
        ]

    @staticmethod
    def variations() -> tuple[dict, ...]:
        """Return changes to try on the best of the grid, one after the other."""
        return VARIATIONS

    def run(self, settings: dict, seed: int, look: Look) -> None:
        """Start afresh and make updates until told to stop.

        Parameters
        ----------
        settings : dict
            One choice from the grid, perhaps varied.
        seed : int
            Of every draw.
        look : callable
            Called with the number of updates made and a function that returns the moments;
            answers after how many updates to be called again, or None to stop. The first call
            is at 0, before any update.
        """
        self.start(settings, seed)
        step, stop = 0, look(0, self.moments)
        while stop is not None:
            self.advance(stop - step)
            step, stop = stop, look(stop, self.moments)

    @abstractmethod
    def start(self, settings: dict, seed: int) -> None:
        """Forget the state; start afresh."""

    @abstractmethod
    def advance(self, steps: int) -> None:
        """Make that many updates, and wait for them."""

    @abstractmethod
    def moments(self) -> Moments:
        """Return mean and standard deviation of the weights now, both (M, D)."""


class NumPyro(Peer):
    """SVI with Adam in one compiled loop, in single precision, the KL in closed form."""

    name = "NumPyro SVI"
    compiled_loop = True

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self._compiled: dict[tuple, tuple] = {}

    @staticmethod
    def variations() -> tuple[dict, ...]:
        """See `Peer.variations`; also tries the guide that samples its KL."""
        return (*VARIATIONS, {"guide": "AutoDiagonalNormal"})

    def start(self, settings: dict, seed: int) -> None:
        """See `Peer.start`."""
        guide = settings.get("guide", "AutoNormal")
        key = guide, settings["particles"], settings["initial_scale"]
        if key not in self._compiled:
            start = time.perf_counter()
            functions = self._compile(*key)
            self._compiled[key] = *functions, time.perf_counter() - start
        init, self._run, self._params, self.compile_seconds = self._compiled[key]
        self._schedule = jnp.float32(settings["rate"]), jnp.float32(settings["horizon"])
        self._state = jax.block_until_ready(init(random.PRNGKey(seed), *self._schedule))

    def advance(self, steps: int) -> None:
        """See `Peer.advance`."""
        self._state = jax.block_until_ready(self._run(self._state, steps, *self._schedule))

    def moments(self) -> Moments:
        """See `Peer.moments`."""
        params = self._params(self._state)
        loc, scale = (next(v for k, v in params.items() if k.endswith(e)) for e in ("loc", "scale"))
        return np.reshape(loc, self.shape), np.reshape(scale, self.shape)

    def _compile(self, guide_name: str, particles: int, initial_scale: float) -> tuple:
        X, y = jnp.asarray(self.problem.X, jnp.float32), jnp.asarray(self.problem.y)
        shape = self.shape

        def model() -> None:
            W = numpyro.sample("W", numpyro.distributions.Normal(0, 1).expand(shape).to_event(2))
            numpyro.sample("y", numpyro.distributions.Categorical(logits=X @ W), obs=y)

        # With independent weights a closed-form KL is right; the other guide draws one vector.
        closed_form = guide_name == "AutoNormal"
        loss = infer.TraceMeanField_ELBO if closed_form else infer.Trace_ELBO
        guide = getattr(infer.autoguide, guide_name)(
            model, init_scale=initial_scale,
            init_loc_fn=infer.init_to_value(values={"W": jnp.zeros(shape)}),
        )  # fmt: skip

        def svi(rate: jax.Array, horizon: jax.Array) -> infer.SVI:
            adam = optim.Adam(lambda i: rate * FINAL_RATE ** jnp.minimum(i / horizon, 1))
            return infer.SVI(model, guide, adam, loss(num_particles=particles))

        def run(state: tuple, steps: int, rate: jax.Array, horizon: jax.Array) -> tuple:
            solver = svi(rate, horizon)
            solver.init(random.PRNGKey(0))  # lets it know its constraints
            return lax.fori_loop(0, steps, lambda _, s: solver.update(s)[0], state)

        outside = svi(jnp.float32(0.1), jnp.float32(100))
        outside.init(random.PRNGKey(0))  # builds the guide outside of any tracing
        init = jax.jit(lambda key, *schedule: svi(*schedule).init(key))
        run = jax.jit(run)
        state = init(random.PRNGKey(0), jnp.float32(0.1), jnp.float32(100))
        jax.block_until_ready(run(state, 1, jnp.float32(0.1), jnp.float32(100)))
        return init, run, outside.get_params


class PyMC(Peer):
    """ADVI with Adam through PyMC's compiled step function, with no progress bar."""

    name = "PyMC ADVI"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self._compiled: dict[int, tuple] = {}

    def start(self, settings: dict, seed: int) -> None:
        """See `Peer.start`."""
        particles = settings["particles"]
        if particles not in self._compiled:
            start = time.perf_counter()
            functions = self._compile(particles)
            self._compiled[particles] = *functions, time.perf_counter() - start
        self._update, self._rate, fresh, approx, self.compile_seconds = self._compiled[particles]
        self._mean, self._rho = approx.params_dict["mu"], approx.params_dict["rho"]
        for variable, value in fresh:
            generator = isinstance(value, np.random.Generator)
            variable.set_value(np.random.default_rng(seed) if generator else value)
        self._rho.set_value(np.full(self._rho.get_value().shape, _rho(settings["initial_scale"])))
        self._settings, self._step = settings, 0

    def advance(self, steps: int) -> None:
        """See `Peer.advance`."""
        rate, horizon = self._settings["rate"], self._settings["horizon"]
        for step in range(self._step, self._step + steps):
            self._rate.set_value(np.float64(rate * FINAL_RATE ** min(step / horizon, 1)))
            self._update()
        self._step += steps

    def moments(self) -> Moments:
        """See `Peer.moments`."""
        scale = np.logaddexp(0, self._rho.get_value())
        return self._mean.get_value().reshape(self.shape), scale.reshape(self.shape)

    def _compile(self, particles: int) -> tuple:
        with pymc.Model():
            W = pymc.Normal("W", 0, 1, shape=self.shape)
            logits = pytensor.tensor.dot(self.problem.X, W)
            pymc.Categorical("y", logit_p=logits, observed=self.problem.y)
            advi = pymc.ADVI(random_seed=0)
            rate = pytensor.shared(np.float64(0.1), name="rate")
            # With score=False, which would be faster, PyMC 5.28 diverges from any start.
            update = advi.objective.step_function(
                obj_n_mc=particles, obj_optimizer=pymc.adam(learning_rate=rate), score=True
            )
        fresh = [(variable, variable.get_value()) for variable in update.get_shared()]
        update()
        return update, rate, fresh, advi.approx


class Pyro(Peer):
    """SVI with Adam in torch, its ELBO traced by torch's own compiler."""

    name = "Pyro SVI"

    @staticmethod
    def variations() -> tuple[dict, ...]:
        """See `Peer.variations`; also tries the ELBO that is not traced."""
        return (*VARIATIONS, {"traced": False})

    def start(self, settings: dict, seed: int) -> None:
        """See `Peer.start`."""
        start = time.perf_counter()
        X = torch.tensor(self.problem.X, dtype=torch.float32)
        y = torch.tensor(self.problem.y)
        zeros, ones = torch.zeros(self.shape), torch.ones(self.shape)

        def model() -> None:
            W = pyro.sample("W", pyro.distributions.Normal(zeros, ones).to_event(2))
            likelihood = pyro.distributions.Categorical(logits=X @ W)
            pyro.sample("y", likelihood.to_event(1), obs=y)

        pyro.clear_param_store()
        pyro.set_rng_seed(seed)
        guide = AutoDiagonalNormal(
            model, init_loc_fn=init_to_value(values={"W": zeros}),
            init_scale=settings["initial_scale"],
        )  # fmt: skip
        decay = FINAL_RATE ** (1 / settings["horizon"])
        # ClippedAdam is Adam with a decaying rate; nothing is clipped.
        adam = ClippedAdam({"lr": settings["rate"], "lrd": decay, "clip_norm": 1e9})
        self._svi = pyro.infer.SVI(model, guide, adam, self._loss(settings))
        self._svi.step()  # builds the guide and traces; this update is not counted
        self.compile_seconds = time.perf_counter() - start

    def advance(self, steps: int) -> None:
        """See `Peer.advance`."""
        for _ in range(steps):
            self._svi.step()

    def moments(self) -> Moments:
        """See `Peer.moments`."""
        params = {name.split(".")[-1]: value for name, value in pyro.get_param_store().items()}
        loc, scale = (params[key].detach().numpy().astype(float) for key in ("loc", "scale"))
        return loc.reshape(self.shape), scale.reshape(self.shape)

    @staticmethod
    def _loss(settings: dict) -> pyro.infer.ELBO:
        kind = pyro.infer.JitTrace_ELBO if settings.get("traced", True) else pyro.infer.Trace_ELBO
        return kind(num_particles=settings["particles"], ignore_jit_warnings=True)


class Enough(Exception):  # noqa: N818
    """Raised in a callback to leave `vilogit.fit_sgd`."""


class Textbook(Peer):
    """The loop of chapter 3, `vilogit.fit_sgd`, left from its callback."""

    name = "fit_sgd"

    @staticmethod
    def grid() -> list[dict]:
        """Rates and numbers of steps: the rate falls to zero over the last half of them."""
        steps, rates = (1000, 4000, 16000, 64000), (0.1, 0.03, 0.01, 0.003, 0.001)
        return [dict(rate=rate, steps=n) for n, rate in itertools.product(steps, rates)]

    @staticmethod
    def variations() -> tuple[dict, ...]:
        """Return nothing: the loop has no other settings."""
        return ()

    def run(self, settings: dict, seed: int, look: Look) -> None:
        """See `Peer.run`."""
        stop: int | None = 0

        def callback(state: vilogit.posterior.State) -> None:
            nonlocal stop
            if state.step in (stop, settings["steps"]):
                stop = look(state.step, lambda: (state.q.mean, state.q.scale))
                if stop is None:
                    raise Enough

        with contextlib.suppress(Enough), np.errstate(all="ignore"):
            vilogit.fit_sgd(
                self.problem.X, self.problem.y, rng=np.random.default_rng(seed),
                steps=settings["steps"], learning_rate=settings["rate"],
                prior_precision=PRIOR_PRECISION, n_classes=self.problem.D, callback=callback,
            )  # fmt: skip

    def start(self, settings: dict, seed: int) -> None:
        """Do nothing: `run` starts."""

    def advance(self, steps: int) -> None:
        """Do nothing: `run` advances."""

    def moments(self) -> Moments:
        """Do nothing: `run` hands out the moments."""
        raise NotImplementedError


PEERS: tuple[type[Peer], ...] = (NumPyro, PyMC, Pyro, Textbook)


def _rho(scale: float) -> float:
    return float(np.log(np.expm1(scale)))
