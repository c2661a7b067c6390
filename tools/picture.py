"""Draw the picture of the README and the landing page: the toy problem, true beside learned."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import vilogit

TARGET = Path("book/images/after.png")

plt.style.use("vilogit.book")
data = vilogit.simulate(np.random.default_rng(1))
posterior = vilogit.fit_sgd(data.X, data.y, rng=np.random.default_rng(0))
figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), sharex=True, sharey=True)
limits = (-5, 5, -5, 5)
vilogit.plot_class_map(
    lambda X: vilogit.softmax(X @ data.W), data.X, data.y, ax=panels[0], limits=limits,
    title="true weights, true classes",
)  # fmt: skip
vilogit.plot_class_map(
    posterior.predict_proba, data.X, posterior.predict(data.X), ax=panels[1], limits=limits,
    title="learned posterior, predicted classes",
)  # fmt: skip
panels[0].set(xlabel="$x_1$", ylabel="$x_2$")
panels[1].set(xlabel="$x_1$")
TARGET.parent.mkdir(exist_ok=True)
figure.savefig(TARGET, dpi=110)
print(f"{TARGET}: {TARGET.stat().st_size} bytes")
