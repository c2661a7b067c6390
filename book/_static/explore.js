/* The landing page's picture, alive: move the points, and the posterior is fitted anew.

   First the inference, in double precision: three classes, inputs (x1, x2, 1), prior precision 1.
   The objective is chapter 3's, its averages are chapter 5's, and BFGS climbs to its one optimum.
   Then the picture; its frame is explore.html. Without this script a still figure stands there. */
"use strict";

window.vilogitExplore = (() => {
  const D = 3, S = D * D; // classes and inputs; theta holds S means, and from S on, log scales
  const WEIGHTS = Array.from({ length: S }, (_, k) => ({ k, m: Math.floor(k / D), d: k % D }));

  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const dot = (a, b) => sum(a.map((value, k) => value * b[k]));

  /** Mean and standard deviation of the independent logits at an input. */
  function logits(theta, x) {
    const mean = [0, 0, 0], variance = [0, 0, 0];
    for (const { k, m, d } of WEIGHTS) {
      mean[d] += x[m] * theta[k];
      variance[d] += (x[m] * Math.exp(theta[S + k])) ** 2;
    }
    return { mean, sd: variance.map(Math.sqrt) };
  }

  /** Make a function that averages log-sum-exp, the softmax a, and a (1 - a) over such logits.

      Of logits with Gumbel noise, number d is the largest with probability a_d. So the averages
      are integrals over the largest value u, and their integrands are products with one factor a
      class: the distribution F of a Gaussian (`masses`) plus a Gumbel variable (`gumbel`). */
  function averager(rows, accuracy) {
    const digits = Math.log(10 / accuracy), narrowest = Math.min(...rows.flatMap(({ sd }) => sd));
    const step = Math.min(Math.PI ** 2 / (digits + 3), 4.4 * narrowest / Math.sqrt(digits));
    const reach = Math.sqrt(2 * digits) + 0.3; // in standard deviations
    const low = Math.ceil(Math.log(digits) / step), high = Math.ceil(digits / step);
    const t = Array.from({ length: low + high + 1 }, (_, k) => Math.exp((low - k) * step));
    const gumbel = t.map((t) => Math.exp(-t)); // from practically 0 to practically 1
    const slope = t.map((t, k) => t * gumbel[k]), bend = t.map((t, k) => (t - 1) * slope[k]);

    return ({ mean, sd }) => {
      const first = mean.map((m, d) => Math.ceil((m - reach * sd[d]) / step));
      const masses = mean.map((m, d) => {
        const count = Math.ceil(2 * reach * sd[d] / step);
        const z = Array.from({ length: count }, (_, i) => ((first[d] + i) * step - m) / sd[d]);
        const bell = z.map((z) => Math.exp(-z * z / 2)), whole = sum(bell);
        return bell.map((value) => value / whole);
      });
      const probs = [0, 0, 0], spread = [0, 0, 0], F = [0, 0, 0], dF = [0, 0, 0], ddF = [0, 0, 0];
      const past = [0, 0, 0], settled = [0, 0, 0]; // masses whose Gumbel factor has become 1
      const end = high + Math.max(...first.map((k, d) => k + masses[d].length));
      const center = Math.max(...mean);
      let logSumExp = center;
      for (let u = Math.max(...first) - low; u < end; u++) {
        for (let d = 0; d < D; d++) {
          const mass = masses[d], top = u + low - first[d];
          while (past[d] < Math.min(mass.length, top - low - high)) settled[d] += mass[past[d]++];
          [F[d], dF[d], ddF[d]] = [settled[d], 0, 0];
          for (let i = past[d]; i < mass.length && i <= top; i++) {
            F[d] += mass[i] * gumbel[top - i];
            dF[d] += mass[i] * slope[top - i];
            ddF[d] += mass[i] * bend[top - i];
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

  /** The ELBO at theta, its slope there, and the proven gap to the optimum. */
  function evaluate(points, theta, accuracy) {
    const rows = points.map(({ x1, x2 }) => logits(theta, [x1, x2, 1]));
    const average = averager(rows, accuracy), slope = Array(2 * S).fill(0), precision = [];
    let elbo = 0, gap = 0;
    points.forEach(({ x1, x2, label }, n) => {
      const x = [x1, x2, 1], { logSumExp, probs, spread } = average(rows[n]);
      elbo += rows[n].mean[label] - logSumExp;
      for (const { k, m, d } of WEIGHTS) {
        slope[k] += x[m] * ((d === label) - probs[d]);
        slope[S + k] -= x[m] ** 2 * spread[d] / 2; // in the variance, by Price's theorem
      }
    });
    for (const { k } of WEIGHTS) {
      const variance = Math.exp(2 * theta[S + k]);
      elbo -= (theta[k] ** 2 + variance - 1) / 2 - theta[S + k];
      slope[k] -= theta[k];
      precision[k] = 1 - 2 * slope[S + k]; // the fixed point of the scale
      slope[S + k] = 1 - variance * precision[k];
      gap += (slope[k] ** 2 + slope[S + k] ** 2 / variance) / 2;
    }
    return { theta, elbo, slope, gap, precision };
  }

  /** Climb to the optimum by BFGS, from the prior or from an earlier fit. */
  function fit(points, { accuracy = 1e-9, tol = 1e-12, start = null, most = 300 } = {}) {
    let evaluations = 0;
    const at = (theta) => (evaluations++, evaluate(points, theta, accuracy));
    let here = at(start ?? Array(2 * S).fill(0));
    let metric = [...here.precision.map((p) => 1 / p), ...Array(S).fill(0.5)]
      .map((value, k, all) => all.map((_, j) => (j === k ? value : 0)));
    while (here.gap > tol && evaluations < most) {
      const way = metric.map((row) => dot(row, here.slope)), rise = dot(way, here.slope);
      let t = Math.min(1, 2 / Math.max(...way.slice(S).map(Math.abs))), next = null;
      for (; !next && t > 1e-9 && evaluations < most; t /= 2) {
        const there = at(here.theta.map((value, k) => value + t * way[k]));
        // The ELBO is concave: where it still rises at the far end, it has risen all the way.
        if (there.elbo >= here.elbo + 1e-4 * t * rise || dot(there.slope, way) >= 0) next = there;
      }
      if (!next) break; // rounding hides the way up
      const s = next.theta.map((value, k) => value - here.theta[k]);
      const y = next.slope.map((value, k) => here.slope[k] - value), sy = dot(s, y);
      const My = metric.map((row) => dot(row, y)), c = (1 + dot(y, My) / sy) / sy;
      const change = (i, j) => c * s[i] * s[j] - (s[i] * My[j] + My[i] * s[j]) / sy;
      if (sy > 0) metric = metric.map((row, i) => row.map((value, j) => value + change(i, j)));
      here = next;
    }
    return { ...here, evaluations };
  }

  // The picture: colours as in the book's figures, those of the classes in linear light.
  const FAR = 5; // the plane is [-FAR, FAR] squared
  const NAMES = ["blue circle", "orange square", "green triangle"];
  const LAMPS = [[0, 0.168, 0.445], [0.791, 0.347, 0], [0, 0.102, 0.048]];
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const START = [
    [[-3.2, 1.6], [-2.4, -0.4], [-3.8, -0.9], [-1.5, 2.3], [-0.6, 0.7], [-2.7, 3.1]],
    [[2.1, 2.2], [3.4, 0.9], [0.8, 1.8], [2.9, 3.3], [1.6, 0.2], [3.9, 2.1]],
    [[0.3, -2.9], [-1.2, -3.4], [1.5, -1.6], [0.9, -4.1], [-0.4, -1.7], [2.4, -3.2]],
  ];
  const MOVING = { cells: 32, map: 1e-2, accuracy: 1e-4, tol: 1e-3 };
  const AT_REST = { cells: 80, map: 1e-3, accuracy: 1e-8, tol: 1e-8 };

  const screen = (c) => 255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055);
  const number = (x, n = 1) => (Math.round(x * 10 ** n) / 10 ** n).toFixed(n).replace("-", "−");
  const pixel = (pen, x1, x2) => [x1, -x2].map((x) => pen.canvas.width / 2 * (1 + x / FAR));
  const place = (x1, x2) => `(${number(x1)}, ${number(x2)})`;

  /** Class probabilities and epistemic entropy (chapter 4) at the corners of square cells. */
  function plane(theta, cells, accuracy) {
    const rows = Array.from({ length: (cells + 1) ** 2 }, (_, k) => {
      const i = k % (cells + 1), j = Math.floor(k / (cells + 1));
      const x1 = FAR * (2 * i / cells - 1), x2 = FAR * (1 - 2 * j / cells);
      return { x1, x2, ...logits(theta, [x1, x2, 1]) };
    });
    const average = averager(rows, accuracy);
    return rows.map((row) => {
      const { logSumExp, probs, spread } = average(row), { x1, x2, mean, sd } = row;
      const total = -dot(probs, probs.map((p) => Math.log(Math.max(p, 1e-9))));
      const noise = logSumExp - dot(mean, probs) - dot(sd, sd.map((s, d) => s * spread[d]));
      return { x1, x2, probs, ignorance: Math.max(total - noise, 0) };
    });
  }

  function paint(canvas, corners, color) {
    const side = Math.sqrt(corners.length), size = canvas.clientWidth * devicePixelRatio;
    const small = new OffscreenCanvas(side, side), image = new ImageData(side, side);
    corners.forEach((corner, k) => image.data.set([...color(corner), 255], 4 * k));
    small.getContext("2d").putImageData(image, 0, 0);
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d");
    pen.drawImage(small, 0.5, 0.5, side - 1, side - 1, 0, 0, size, size);
    return pen;
  }

  /** Draw where a class has a certain probability: cell by cell, every other one if dotted. */
  function border(pen, corners, d, level, dotted) {
    const side = Math.sqrt(corners.length), above = corners.map(({ probs }) => probs[d] - level);
    for (let k = 0; k < corners.length - side; k++) {
      const i = k % side, ring = [k, k + 1, k + side + 1, k + side, k];
      if (i === side - 1 || (dotted && (i + (k - i) / side) % 2)) continue;
      const cut = [0, 1, 2, 3].filter((n) => above[ring[n]] < 0 !== above[ring[n + 1]] < 0);
      cut.map((n) => ring.slice(n, n + 2)).forEach(([a, b], turn) => {
        const t = above[a] / (above[a] - above[b]);
        const [x1, x2] = ["x1", "x2"].map((key) => (1 - t) * corners[a][key] + t * corners[b][key]);
        pen[turn % 2 ? "lineTo" : "moveTo"](...pixel(pen, x1, x2));
      });
    }
  }

  const stage = document.getElementById("explore"), [map, doubt] = stage.querySelectorAll("canvas");
  const [layer, status] = stage.querySelectorAll("[role=application], [role=status]");
  // The points are buttons, the children of the layer that lies on the left canvas.
  let selected = null, solution = null, frame = 0, rest = 0;

  /** Fit the points as they are, draw both planes, and say in words what they show. */
  function update(quality) {
    const points = [...layer.children];
    solution = fit(points, { ...quality, start: solution?.theta });
    const corners = plane(solution.theta, quality.cells, quality.map);
    const pen = paint(map, corners, ({ probs }) =>
      [0, 1, 2].map((c) => screen(0.1 + 0.9 * dot(probs, LAMPS.map((lamp) => lamp[c])))));
    pen.lineWidth = 1.2 * devicePixelRatio;
    for (let d = 0; d < D; d++) [0.5, 0.9].forEach((p) => border(pen, corners, d, p, p > 0.5));
    pen.stroke();
    const dots = paint(doubt, corners, ({ ignorance }) => {
      const t = 4 * Math.min(ignorance / 0.5, 0.9999), k = Math.floor(t);
      return VIRIDIS[k].map((c, n) => c + (t - k) * (VIRIDIS[k + 1][n] - c));
    });
    const size = 4 * devicePixelRatio;
    dots.fillStyle = "white";
    dots.translate(-size / 2, -size / 2);
    for (const { x1, x2 } of points) dots.fillRect(...pixel(dots, x1, x2), size, size);

    const elbo = `ELBO ${number(solution.elbo, 3)} nats`;
    const bound = solution.gap + points.length * quality.accuracy;
    status.ariaBusy = quality === MOVING; // read aloud only when the points rest
    status.textContent = `${elbo} after ${solution.evaluations} evaluations, ` +
      `at most ${bound.toExponential(0)} below the optimum.`;
    const parts = NAMES.map((name, d) => {
      const own = corners.filter(({ probs }) => Math.max(...probs) - probs[d] < 1e-3);
      const where = ["x1", "x2"].map((key) => sum(own.map((corner) => corner[key])) / own.length);
      const count = points.filter(({ label }) => label === d).length;
      return `${name}s: ${count}, likeliest ${own.length ? `near ${place(...where)}` : "nowhere"}`;
    });
    map.ariaLabel = `Class probabilities as colour. ${parts.join("; ")}. ${elbo}.`;
    const { x1, x2, ignorance } = corners.reduce((a, b) => (a.ignorance > b.ignorance ? a : b));
    const peak = `highest, ${number(ignorance, 2)} nats, at ${place(x1, x2)}`;
    doubt.ariaLabel = `Epistemic entropy as colour, ${peak}. ${elbo}.`;
  }

  /** After any change: a rough picture in the next frame, the exact one when the points rest. */
  function changed() {
    for (const point of layer.children) {
      point.style.left = `${50 + 50 * point.x1 / FAR}%`;
      point.style.top = `${50 - 50 * point.x2 / FAR}%`;
      point.tabIndex = point === selected ? 0 : -1;
      point.ariaLabel = `${NAMES[point.label]} at ${place(point.x1, point.x2)}`;
    }
    status.ariaBusy = true;
    cancelAnimationFrame(frame);
    clearTimeout(rest);
    frame = requestAnimationFrame(() => update(MOVING));
    rest = setTimeout(() => update(AT_REST), 200);
  }

  function select(point) {
    selected = point;
    selected?.focus({ preventScroll: true });
    changed();
  }
  function add(x1, x2, label) {
    const point = Object.assign(document.createElement("button"), { x1, x2, label });
    point.innerHTML = `<svg aria-hidden="true"><use href="#explore-${label}"/></svg>`;
    return layer.appendChild(point);
  }
  function remove(point) {
    select(point.nextSibling ?? point.previousSibling);
    point.remove();
  }
  function move(...x) {
    [selected.x1, selected.x2] = x.map((x) => Math.max(-FAR, Math.min(FAR, x)));
    changed();
  }
  function under({ clientX, clientY }) {
    const { left, top, width } = layer.getBoundingClientRect();
    return [clientX - left, top + width - clientY].map((side) => FAR * (2 * side / width - 1));
  }
  const touched = (event) => event.target.closest("button");
  const chosen = () => Number(stage.querySelector("input:checked").value);
  layer.onpointerdown = (event) => {
    if (touched(event)) select(touched(event));
    touched(event)?.setPointerCapture(event.pointerId);
  };
  layer.onpointermove = (at) => selected?.hasPointerCapture(at.pointerId) && move(...under(at));
  layer.onclick = (event) => touched(event) || select(add(...under(event), chosen()));
  layer.ondblclick = (event) => touched(event) && remove(touched(event));
  layer.onkeydown = (event) => {
    const size = event.shiftKey ? 0.05 : 0.25, { x1, x2 } = selected;
    const act = {
      ArrowLeft: () => move(x1 - size, x2), ArrowRight: () => move(x1 + size, x2),
      ArrowDown: () => move(x1, x2 - size), ArrowUp: () => move(x1, x2 + size),
      PageUp: () => select(selected.previousSibling ?? layer.lastChild),
      PageDown: () => select(selected.nextSibling ?? layer.firstChild),
      Delete: () => remove(selected),
    }[event.key];
    if (act) event.preventDefault();
    act?.();
  };
  const [plus, minus, none, again] = stage.querySelectorAll("button");
  plus.onclick = () => select(add(0, 0, chosen()));
  minus.onclick = () => selected && remove(selected);
  none.onclick = () => select(layer.replaceChildren());
  again.onclick = () => {
    layer.replaceChildren();
    START.forEach((own, label) => own.forEach(([x1, x2]) => add(x1, x2, label)));
    selected = layer.children[8];
    changed();
  };
  stage.hidden = false;
  document.getElementById("explore-still").hidden = true;
  new ResizeObserver(changed).observe(map);
  again.click();
  const plain = ({ x1, x2, label }) => ({ x1, x2, label });
  return { fit, state: () => ({ ...solution, points: [...layer.children].map(plain) }) };
})();
