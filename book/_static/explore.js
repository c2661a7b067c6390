/* The landing page's picture, alive: move the points, and the posterior is fitted anew.

   First the inference, in double precision: three classes, inputs (x1, x2, 1), prior precision 1.
   The objective is chapter 3's, its averages are chapter 5's, and BFGS climbs to its one optimum.
   Then the picture. Without this script a still figure stands in its place. */
"use strict";

window.vilogitExplore = (() => {
  const D = 3; // classes, and as many inputs
  const SIZE = D * D; // weights; number D * m + d leads from input m to class d

  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const diagonal = (values) => values.map((v, k) => values.map((_, j) => (k === j ? v : 0)));

  /** Mean and standard deviation of the independent logits at an input. */
  function logits(theta, x) {
    const mean = [0, 0, 0], sd = [0, 0, 0];
    for (let k = 0; k < SIZE; k++) {
      const m = Math.floor(k / D), d = k % D;
      mean[d] += x[m] * theta[k];
      sd[d] += (x[m] * Math.exp(theta[SIZE + k])) ** 2;
    }
    return { mean, sd: sd.map(Math.sqrt) };
  }

  /** Make a function that averages log-sum-exp, the softmax a, and a (1 - a) over such logits.

      Of logits with Gumbel noise, number d is the largest with probability a_d. So the averages
      are integrals over the largest value u, and their integrands are products with one factor a
      class: the distribution of a Gaussian (`masses`) plus a Gumbel variable (`gumbel`). */
  function averager(rows, accuracy) {
    const digits = Math.log(10 / accuracy);
    const narrowest = Math.min(...rows.flatMap((row) => row.sd));
    const step = Math.min(Math.PI ** 2 / (digits + 3), 4.4 * narrowest / Math.sqrt(digits));
    const reach = Math.sqrt(2 * digits) + 0.3;
    const low = Math.ceil(Math.log(digits) / step), high = Math.ceil(digits / step);
    const t = Array.from({ length: low + high + 1 }, (_, k) => Math.exp((low - k) * step));
    const gumbel = t.map((t) => Math.exp(-t)); // from practically 0 to practically 1
    const slope = t.map((t, k) => t * gumbel[k]), bend = t.map((t, k) => (t - 1) * slope[k]);

    return ({ mean, sd }) => {
      const first = mean.map((m, d) => Math.ceil((m - reach * sd[d]) / step));
      const masses = mean.map((m, d) => {
        const bell = [];
        for (let k = first[d]; k * step <= m + reach * sd[d]; k++) {
          bell.push(Math.exp(-0.5 * ((k * step - m) / sd[d]) ** 2));
        }
        const total = bell.reduce((sum, value) => sum + value);
        return bell.map((value) => value / total);
      });
      const center = Math.max(...mean);
      const stop = Math.max(...first.map((k, d) => k + masses[d].length)) + high;
      const probs = [0, 0, 0], spread = [0, 0, 0], F = [0, 0, 0], dF = [0, 0, 0], ddF = [0, 0, 0];
      const past = [0, 0, 0], settled = [0, 0, 0]; // masses whose Gumbel factor has become 1
      let logSumExp = center;
      for (let u = Math.max(...first) - low; u < stop; u++) {
        for (let d = 0; d < D; d++) {
          const mass = masses[d], shift = u + low - first[d];
          while (past[d] < mass.length && past[d] < shift - low - high) settled[d] += mass[past[d]++];
          F[d] = settled[d];
          dF[d] = ddF[d] = 0;
          for (let i = past[d]; i < mass.length && i <= shift; i++) {
            F[d] += mass[i] * gumbel[shift - i];
            dF[d] += mass[i] * slope[shift - i];
            ddF[d] += mass[i] * bend[shift - i];
          }
        }
        // The mean of the largest, less that of a Gumbel variable at the center.
        logSumExp += step * (Math.exp(-Math.exp(center - u * step)) - F[0] * F[1] * F[2]);
        for (let d = 0; d < D; d++) {
          const others = step * F[(d + 1) % D] * F[(d + 2) % D];
          probs[d] += dF[d] * others;
          spread[d] -= ddF[d] * others;
        }
      }
      return { logSumExp, probs, spread };
    };
  }

  /** The ELBO at theta (9 means, 9 log scales), its slope, and the proven gap to the optimum. */
  function evaluate(points, theta, accuracy) {
    const rows = points.map(({ x1, x2 }) => logits(theta, [x1, x2, 1]));
    const average = averager(rows, accuracy);
    const slope = Array(2 * SIZE).fill(0), precision = Array(SIZE);
    let elbo = 0, gap = 0;
    points.forEach(({ x1, x2, label }, n) => {
      const x = [x1, x2, 1], { logSumExp, probs, spread } = average(rows[n]);
      elbo += rows[n].mean[label] - logSumExp;
      for (let k = 0; k < SIZE; k++) {
        const m = Math.floor(k / D), d = k % D;
        slope[k] += x[m] * ((d === label) - probs[d]);
        slope[SIZE + k] -= x[m] ** 2 * spread[d] / 2; // in the variance, by Price's theorem
      }
    });
    for (let k = 0; k < SIZE; k++) {
      const variance = Math.exp(2 * theta[SIZE + k]);
      elbo -= (theta[k] ** 2 + variance - 1) / 2 - theta[SIZE + k];
      slope[k] -= theta[k];
      precision[k] = 1 - 2 * slope[SIZE + k]; // where the scale is at rest
      slope[SIZE + k] = 1 - variance * precision[k];
      gap += (slope[k] ** 2 + slope[SIZE + k] ** 2 / variance) / 2;
    }
    return { theta, elbo, slope, gap, precision };
  }

  /** Climb to the optimum by BFGS, from the prior or from an earlier fit. */
  function fit(points, { accuracy = 1e-9, tol = 1e-12, start = null, most = 300 } = {}) {
    let evaluations = 0;
    const at = (theta) => (evaluations++, evaluate(points, theta, accuracy));
    const plain = (here) => diagonal([...here.precision.map((p) => 1 / p), ...Array(SIZE).fill(0.5)]);
    let here = at(start ? start.theta : Array(2 * SIZE).fill(0));
    let metric = start ? start.metric : plain(here), fresh = !start;
    while (here.gap > tol && evaluations < most) {
      const way = metric.map((row) => dot(row, here.slope)), rise = dot(way, here.slope);
      let t = Math.min(1, 2 / Math.max(...way.slice(SIZE).map(Math.abs))), next = null;
      for (; !next && rise > 0 && t > 1e-9 && evaluations < most; t /= 2) {
        const there = at(here.theta.map((value, k) => value + t * way[k]));
        // The ELBO is concave: where it still rises at the far end, it has risen all the way.
        const risen = there.elbo >= here.elbo + 1e-4 * t * rise || dot(there.slope, way) >= 0;
        if (risen) next = there;
      }
      if (!next && fresh) break; // rounding hides the way up
      fresh = !next;
      if (fresh) {
        metric = plain(here);
        continue;
      }
      const s = next.theta.map((value, k) => value - here.theta[k]);
      const y = next.slope.map((value, k) => here.slope[k] - value);
      const My = metric.map((row) => dot(row, y)), sy = dot(s, y), weight = (1 + dot(y, My) / sy) / sy;
      if (sy > 0) {
        metric = metric.map((row, i) =>
          row.map((value, j) => value + weight * s[i] * s[j] - (s[i] * My[j] + My[i] * s[j]) / sy));
      }
      here = next;
    }
    const table = (values) => [0, 1, 2].map((m) => values.slice(D * m, D * m + D));
    const mean = table(here.theta), scale = table(here.theta.slice(SIZE).map(Math.exp));
    return { elbo: here.elbo, gap: here.gap, mean, scale, evaluations, theta: here.theta, metric };
  }

  return { fit };
})();
if (typeof module === "object") module.exports = window.vilogitExplore;
