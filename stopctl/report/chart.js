// One panel of curves as SVG: scales, ticks, lines thinned to the pixel, marks.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const drawn = (name) => document.querySelector(`#key .${name}`).getAttribute("d");  // as in the key
const DASHES = ["", "6 4", "2 3", "9 3 2 3", "1 5"];

function shape(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

const finite = (value) => typeof value === "number";

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (!finite(value)) return { Infinity: "∞", "-Infinity": "−∞" }[value] ?? value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(size >= 1e4 ? 6 : 4)));
  return text.replace("-", "−");
}

function duration(seconds) {
  if (seconds < 100) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function ticks(low, high, most) {
  const rough = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high, most) {
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const n of [1, 2, 5]) found.push(n * 10 ** power);
  const inside = found.filter((value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9);
  const powers = inside.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6));
  const kept = inside.length <= most * 1.6 ? inside : powers;
  const every = Math.ceil(kept.length / most);
  return kept.length < 2 ? ticks(low, high, most).map((value) => 10 ** value) : kept.filter((_, i) => i % every === 0);
}

// The index of the report nearest to x; xs is ascending.
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && x - xs[low - 1] <= xs[low] - x ? low - 1 : low;
}

// A path through the points; where a pixel column has many, through its first, lowest, highest and last.
function line(xs, ys, at, height) {
  let path = "", column = null, gap = true;
  const put = (x, y) => { path += `${gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`; gap = false; };
  const flush = () => {
    if (column === null) return;
    const points = [column.first, column.low, column.high, column.last].sort((a, b) => a.i - b.i);
    points.forEach((point, i) => { if (i === 0 || point.i !== points[i - 1].i) put(point.x, point.y); });
    column = null;
  };
  for (let i = 0; i < xs.length; i++) {
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

// Marks that would lie on one another are drawn once for each two pixels.
function thinned(indices, xs, at) {
  const seen = new Set();
  return indices.filter((i) => {
    const pixel = Math.round(at(xs[i]) / 2);
    return !seen.has(pixel) && seen.add(pixel);
  });
}

/* Draw one panel and return what the cursor needs.
   series: [{run, name, xs, ys, goal, order, voided, marks}], xs ascending. */
function drawPanel(host, series, options) {
  const width = Math.max(host.clientWidth, 200), tall = options.tall;
  const body = options.main ? Math.min(380, Math.max(240, width * 0.48)) : 150;
  const box = { left: 52, right: 14, top: options.main ? 26 : 10, bottom: tall ? 42 : 26 };
  const all = series.filter((one) => !one.voided || options.voided);
  const values = all.flatMap((one) => [range(one.ys)]).filter(Boolean);
  const log = options.log && values.length > 0 && values.every(([low]) => low > 0);
  const scale = log ? Math.log10 : (value) => value;
  let [low, high] = values.length ? [scale(Math.min(...values.map((v) => v[0]))), scale(Math.max(...values.map((v) => v[1])))] : [0, 1];
  const margin = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 0.5;
  low -= margin; high += margin;
  const right = width - box.right, bottom = body - box.bottom;
  const [first, last] = options.domain;
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
  const whole = options.whole;
  for (const value of ticks(first, last, Math.max(2, Math.floor((right - box.left) / 60)))) {
    if (whole && !Number.isInteger(value)) continue;
    shape(svg, "line", { class: "axis", x1: at(value), x2: at(value), y1: bottom, y2: bottom + 5 });
    const text = options.tick(value), middle = Math.min(at(value), width - 3.6 * text.length);
    shape(svg, "text", { x: middle, y: bottom + 18, "text-anchor": "middle" }, text);
  }
  shape(svg, "line", { class: "axis", x1: box.left, x2: right, y1: bottom, y2: bottom });
  if (tall) shape(svg, "text", { x: (box.left + right) / 2, y: body - 6, "text-anchor": "middle" }, options.title);

  for (const one of all.filter((s) => !s.voided && s.marks)) verticals(svg, one, at, box.top, bottom);
  for (const one of [...all].sort((a, b) => a.goal - b.goal)) {
    const kind = one.voided ? "void" : one.goal ? "goal" : "other";
    const path = shape(svg, "path", { class: `curve ${kind} run-${one.run % 8}`, d: line(one.xs, one.ys, at, height), "data-series": one.name });
    const dense = one.xs.length > 3 * width;
    if (dense) path.classList.add("dense");
    if (!one.voided && !dense && DASHES[one.order % DASHES.length]) path.setAttribute("stroke-dasharray", DASHES[one.order % DASHES.length]);
  }
  for (const one of all.filter((s) => !s.voided && s.marks)) points(svg, one, at, height);
  const over = shape(svg, "g", { "pointer-events": "none" });
  return { svg, over, at, height, top: box.top, bottom, left: box.left, right, series: all.filter((s) => !s.voided) };
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (finite(value)) { if (value < low) low = value; if (value > high) high = value; }
  return low <= high ? [low, high] : null;
}

function verticals(svg, one, at, top, bottom) {
  const { marks, xs } = one, group = shape(svg, "g", { class: `run-${one.run % 8}` });
  for (const i of thinned(marks.resumes, xs, at))
    shape(group, "line", { class: "resume", x1: at(xs[i]), x2: at(xs[i]), y1: top, y2: bottom, "data-mark": "resume" });
  if (marks.stop !== null) {
    const x = at(xs[marks.stop]);
    shape(group, "line", { class: "stop", x1: x, x2: x, y1: top, y2: bottom, "data-mark": "stop" });
  }
}

function points(svg, one, at, height) {
  const { marks, xs, ys } = one, group = shape(svg, "g", { class: `run-${one.run % 8}` });
  const place = (i) => `translate(${at(xs[i]).toFixed(1)} ${height(ys[i]).toFixed(1)})`;
  const shown = (indices) => thinned(indices.filter((i) => finite(ys[i])), xs, at);
  for (const i of shown(marks.pruned)) shape(group, "circle", { class: "pruned", r: 3, transform: place(i), "data-mark": "saved" });
  for (const i of shown(marks.kept)) shape(group, "circle", { class: "kept", r: 4, transform: place(i), "data-mark": "kept" });
  for (const i of shown(marks.drops))
    shape(group, "path", { class: "drop", d: drawn("drop"), transform: `translate(${at(xs[i]).toFixed(1)} ${(height(ys[i]) - 13).toFixed(1)})`, "data-mark": "drop" });
  if (marks.best !== null) shape(group, "path", { class: "best", d: drawn("best"), transform: place(marks.best), "data-mark": "best" });
}
