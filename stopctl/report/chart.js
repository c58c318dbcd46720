// One panel of curves as SVG: scales, lines thinned to the pixel, marks.

const drawn = (name) => document.querySelector(`#key .${name}`).getAttribute("d");  // as in the key
const DASHES = ["", "6 4", "2 3", "9 3 2 3", "1 5"];

// A path through the points; where a pixel column has many, through its first, lowest, highest and last.
function line(xs, ys, [from, to], at, height) {
  let path = "", column = null, gap = true;
  const put = (x, y) => { path += `${gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`; gap = false; };
  const flush = () => {
    if (column === null) return;
    const points = [column.first, column.low, column.high, column.last].sort((a, b) => a.i - b.i);
    points.forEach((point, i) => { if (i === 0 || point.i !== points[i - 1].i) put(point.x, point.y); });
    column = null;
  };
  for (let i = from; i < to; i++) {
    const y = finite(ys[i]) ? height(ys[i]) : NaN;
    if (Number.isNaN(y)) { flush(); gap = true; continue; }
    const x = at(xs[i]), point = { i, x, y }, pixel = Math.floor(x);
    if (column !== null && column.pixel === pixel) {
      if (y < column.low.y) column.low = point;
      if (y > column.high.y) column.high = point;
      column.last = point;
    } else {
      flush();
      column = { pixel, first: point, low: point, high: point, last: point };
    }
  }
  flush();
  return /M[^L]*(M|$)/.test(path) ? path.replace(/M([^LM]+)(?=M|$)/g, "M$1h0") : path;  // a lone point is a dot
}

// An exponential moving average that starts without a bias; what is not finite, and an outlier, has no part in it.
function smoothed(values, weight) {
  const { low, high } = span(values.filter(finite), 1);
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (!finite(value)) return value;
    if (value < low || value > high) return mass ? sum / mass : null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

// Marks that would lie on one another are drawn once for each two pixels.
function thinned(indices, xs, at) {
  const seen = new Set();
  return indices.filter((i) => {
    const pixel = Math.round(at(xs[i]) / 2);
    return !seen.has(pixel) && seen.add(pixel);
  });
}

/* What the y axis spans, of scaled values. Without 3 % of them at each end, or one a curve, the others span a size;
   what lies further outside than three times that is an outlier, and the axis is made for the rest. */
function span(values, curves) {
  if (!values.length) return { low: 0, high: 1, least: 0, most: 1 };
  const sorted = Float64Array.from(values).sort(), n = sorted.length;
  const few = Math.min(Math.max(curves, Math.floor(n * 0.03)), Math.floor((n - 1) / 4));
  const inner = [sorted[few], sorted[n - 1 - few]], size = inner[1] - inner[0];
  const isCut = few > 0 && size > 0, fence = [inner[0] - 3 * size, inner[1] + 3 * size];
  const low = isCut ? sorted.find((value) => value >= fence[0]) : sorted[0];
  const high = isCut ? sorted.findLast((value) => value <= fence[1]) : sorted[n - 1];
  return { low, high, least: sorted[0], most: sorted[n - 1] };
}

// The indices within the window, and one more on each side for the line that leaves it.
function within(xs, [first, last]) {
  const inside = [firstFrom(xs, first), firstFrom(xs, last)];
  while (inside[1] < xs.length && xs[inside[1]] <= last) inside[1]++;
  return { inside, line: [Math.max(0, inside[0] - 1), Math.min(xs.length, inside[1] + 1)] };
}

/* Draw one panel and return what the cursor needs.
   series: [{run, colour, name, xs, ys, goal, order, voided, marks}], xs ascending. */
function drawPanel(host, series, options) {
  const width = Math.max(host.clientWidth, 200), tall = options.main;
  const body = options.main ? Math.min(380, Math.max(240, width * 0.48)) : 150;
  const box = { left: 52, right: 14, top: options.main ? 26 : 10, bottom: tall ? 42 : 26 };
  const all = series.filter((one) => !one.voided || options.voided).map((one) => ({ ...one, ...within(one.xs, options.window) }));
  const told = all.filter((one) => !one.voided);
  const values = all.flatMap((one) => one.ys.slice(...one.inside).filter(finite));
  const log = options.log && values.length > 0 && values.every((value) => value > 0);
  const scale = log ? Math.log10 : (value) => value;
  const found = span(values.map(scale), all.length);
  const outliers = found.low > found.least || found.high < found.most;
  let [low, high] = options.robust ? [found.low, found.high] : [found.least, found.most];
  const margin = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 0.5;
  low -= margin; high += margin;
  const right = width - box.right, bottom = body - box.bottom;
  const [first, last] = options.window;
  const at = (x) => box.left + ((x - first) / (last - first || 1)) * (right - box.left);
  const height = (value) => bottom - ((scale(value) - low) / (high - low)) * (bottom - box.top);

  const svg = host.querySelector(":scope > svg") ?? shape(host, "svg", {});
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${body}`);
  svg.setAttribute("height", body);
  const most = Math.max(3, Math.floor((bottom - box.top) / 44));
  for (const value of log ? logTicks(low, high, most) : ticks(low, high, most)) {
    const y = height(value);
    shape(svg, "line", { class: "grid", x1: box.left, x2: right, y1: y, y2: y });
    shape(svg, "text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, figure(value));
  }
  const whole = options.whole && last - first >= 2;
  for (const value of ticks(first, last, Math.max(2, Math.floor((right - box.left) / 60)))) {
    if (whole && !Number.isInteger(value)) continue;
    shape(svg, "line", { class: "axis", x1: at(value), x2: at(value), y1: bottom, y2: bottom + 5 });
    const text = options.tick(value), middle = Math.min(at(value), width - 3.6 * text.length);
    shape(svg, "text", { x: middle, y: bottom + 18, "text-anchor": "middle" }, text);
  }
  shape(svg, "line", { class: "axis", x1: box.left, x2: right, y1: bottom, y2: bottom });
  if (tall) shape(svg, "text", { x: (box.left + right) / 2, y: body - 6, "text-anchor": "middle" }, options.title);

  // An inner svg cuts off what leaves the plot.
  const [wide, high_] = [right - box.left + 16, bottom - box.top + 16];
  const plot = shape(svg, "svg", { x: box.left - 8, y: box.top - 8, width: wide, height: high_, viewBox: `${box.left - 8} ${box.top - 8} ${wide} ${high_}` });
  for (const one of told.filter((s) => s.marks && options.crowded <= 3)) verticals(plot, one, at, box.top, bottom);
  for (const one of [...all].sort((a, b) => a.goal - b.goal)) {
    const dense = one.line[1] - one.line[0] > 3 * width, kind = one.voided ? "void" : one.goal ? "goal" : "other";
    const dashes = !one.voided && !dense && DASHES[one.order % DASHES.length];
    const curve = (ys, more) => shape(plot, "path", {
      class: `curve ${kind} ${one.colour}${more}${dense ? " dense" : ""}${options.crowded > 3 ? " crowded" : ""}`,
      d: line(one.xs, ys, one.line, at, height), ...(dashes ? { "stroke-dasharray": dashes } : {}),
    });
    const smooth = options.smooth > 0 && !one.voided;
    if (smooth) curve(one.ys, " raw");
    curve(smooth ? smoothed(one.ys, options.smooth) : one.ys, "").dataset.series = one.name;
  }
  for (const one of told) {
    edges(svg, one, { at, height, top: box.top, bottom });
    if (one.marks && options.crowded <= 3) points(plot, one, at, height);
  }
  if (options.crowded <= 20) for (const one of told.filter((s) => s.marks)) best(plot, one, at, height);
  const over = shape(svg, "g", { "pointer-events": "none" });
  return { svg, over, at, height, top: box.top, bottom, left: box.left, right, series: told, outliers, window: options.window };
}

function verticals(parent, one, at, top, bottom) {
  const { marks, xs, inside: [from, to] } = one, group = shape(parent, "g", { class: one.colour });
  for (const i of thinned(marks.resumes.filter((i) => i >= from && i < to), xs, at))
    shape(group, "line", { class: "resume", x1: at(xs[i]), x2: at(xs[i]), y1: top, y2: bottom, "data-mark": "resume" });
  if (marks.stop !== null && marks.stop >= from && marks.stop < to) {
    const x = at(xs[marks.stop]);
    shape(group, "line", { class: "stop", x1: x, x2: x, y1: top, y2: bottom, "data-mark": "stop" });
  }
}

function points(parent, one, at, height) {
  const { marks, xs, ys, inside: [from, to] } = one, group = shape(parent, "g", { class: one.colour });
  const place = (i, up = 0) => `translate(${at(xs[i]).toFixed(1)} ${(height(ys[i]) - up).toFixed(1)})`;
  const there = (i) => i >= from && i < to && finite(ys[i]);
  const shown = (indices) => thinned(indices.filter(there), xs, at);
  for (const i of shown(marks.pruned)) shape(group, "circle", { class: "pruned", r: 3, transform: place(i), "data-mark": "saved" });
  for (const i of shown(marks.kept)) shape(group, "circle", { class: "kept", r: 4, transform: place(i), "data-mark": "kept" });
  for (const i of shown(marks.drops)) shape(group, "path", { class: "drop", d: drawn("drop"), transform: place(i, 13), "data-mark": "drop" });
}

function best(parent, { marks: { best: i }, colour, xs, ys, inside: [from, to] }, at, height) {
  if (i === null || i < from || i >= to || !finite(ys[i])) return;
  const place = `translate(${at(xs[i]).toFixed(1)} ${height(ys[i]).toFixed(1)})`;
  shape(shape(parent, "g", { class: colour }), "path", { class: "best", d: drawn("best"), transform: place, "data-mark": "best" });
}

// Values that are not finite, and finite ones beyond the axis, at the edge of the plot.
function edges(svg, one, { at, height, top, bottom }) {
  const { xs, ys, inside: [from, to] } = one, group = shape(svg, "g", { class: one.colour });
  const odd = { nonfinite: [], above: [], below: [] };
  for (let i = from; i < to; i++) {
    if (typeof ys[i] === "string") odd.nonfinite.push(i);
    else if (finite(ys[i]) && height(ys[i]) < top - 4) odd.above.push(i);
    else if (finite(ys[i]) && height(ys[i]) > bottom + 4) odd.below.push(i);
  }
  const put = (i, name, y, turn) => {
    const mark = shape(group, "path", { class: name, d: drawn(name), transform: `translate(${at(xs[i]).toFixed(1)} ${y})${turn}`, "data-mark": name });
    shape(mark, "title", {}, `${one.name} ${figure(ys[i])}`);
  };
  for (const i of thinned(odd.nonfinite, xs, at)) put(i, "nonfinite", ys[i] === "Infinity" ? top : bottom, "");
  for (const i of thinned(odd.above, xs, at)) put(i, "outlier", top, "");
  for (const i of thinned(odd.below, xs, at)) put(i, "outlier", bottom, " rotate(180)");
}
