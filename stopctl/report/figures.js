// Numbers as people read them, ticks, and elements made without markup: whatever a run says stays text.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const finite = (value) => typeof value === "number";

function element(name, { text, ...rest } = {}, ...children) {
  const made = Object.assign(document.createElement(name), rest);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function shape(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (!finite(value)) return { Infinity: "∞", "-Infinity": "−∞" }[value] ?? String(value);
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

const counted = (value) => Number(value.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 }).replaceAll(",", "\u2009");

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

// The index of the first x that is not below; xs is ascending.
function firstFrom(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

// The index of the report nearest to x.
function nearest(xs, x) {
  const after = Math.min(firstFrom(xs, x), xs.length - 1);
  return after > 0 && x - xs[after - 1] <= xs[after] - x ? after - 1 : after;
}
