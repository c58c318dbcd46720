// The page: which runs and parts are shown, the cursor and what it reads, the slider, the table of values.
const { runs, patiences } = JSON.parse(document.getElementById("data").textContent);
// A metric may be called as what every object has, "constructor" say.
for (const run of runs) for (const part of [run, ...run.voided]) Object.setPrototypeOf(part.values, null);
const get = (id) => document.getElementById(id);
const view = { shown: runs.map(() => true), axis: runs.every((run) => run.unit === "step") ? "step" : "epoch", log: false, voided: false, x: null };
let panels = [];

function element(name, { text, ...rest } = {}, ...children) {
  const made = Object.assign(document.createElement(name), rest);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// Metrics with one last word ("loss" of train_loss and val_loss) share a panel; the goal's comes first.
function groups() {
  const found = new Map();
  for (const run of runs)
    for (const name of [run.metric, ...Object.keys(run.values).sort()]) {
      const last = name.split(/[^A-Za-z0-9]+/).filter(Boolean).pop()?.toLowerCase() ?? name;
      if (!found.has(last)) found.set(last, []);
      if (!found.get(last).includes(name)) found.get(last).push(name);
    }
  return [...found.values()];
}

const names = groups();
const swatch = (r) => element("span", { className: `swatch run-${r % 8}` });
const visible = () => runs.map((run, r) => [run, r]).filter(([, r]) => view.shown[r]);
// The counters that count anything: a loop over steps has no epochs, one over epochs may count no steps.
const counters = [["epoch", "epoch"], ["step", "step"], ["seconds", "time"]].filter(([part]) => part === view.axis || runs.some((run) => run[part].at(-1) > 0));
const places = (part) => (view.axis === "seconds" ? part.seconds : view.axis === "step" ? part.step : part.epoch);

function seriesOf(group) {
  const found = [];
  for (const [run, r] of visible())
    group.forEach((name, order) => {
      if (!(name in run.values)) return;
      const goal = name === run.metric;
      found.push({ run: r, name, order, goal, xs: places(run), ys: run.values[name], marks: goal ? marksOf(run) : null });
      for (const part of run.voided)
        if (name in part.values) found.push({ run: r, name, order, goal: false, voided: true, xs: places(part), ys: part.values[name] });
    });
  return found;
}

function marksOf(run) {
  return { best: run.best, kept: run.kept, pruned: run.pruned, drops: run.drops, resumes: run.resumes, stop: run.stop };
}

function domain() {
  let first = Infinity, last = -Infinity;
  for (const [run] of visible())
    for (const part of [run, ...(view.voided ? run.voided : [])]) {
      const xs = places(part);
      if (xs.length) { first = Math.min(first, xs[0]); last = Math.max(last, xs[xs.length - 1]); }
    }
  if (first > last) return [0, 1];
  return first === last ? [first - 1, last + 1] : [first, last];
}

function draw() {
  const options = {
    log: view.log, voided: view.voided, domain: domain(), whole: view.axis !== "seconds", title: { epoch: "epoch", step: "step", seconds: "time" }[view.axis],
    tick: view.axis === "seconds" ? duration : (value) => value.toLocaleString("en").replaceAll(",", "\u2009"),
  };
  panels = names.map((group, g) => {
    const host = g === 0 ? get("main-panel") : get("panels").children[g - 1];
    return drawPanel(host, seriesOf(group), { ...options, main: g === 0, tall: g === 0 });
  });
  drawWhatIf();
  drawCursor();
}

function heading(group) {
  const title = element("h3");
  group.forEach((name, order) => {
    const sample = document.createElementNS(SVG, "svg");
    sample.setAttribute("viewBox", "0 0 26 8");
    sample.setAttribute("aria-hidden", "true");
    const goal = runs.some((run) => run.metric === name);
    shape(sample, "path", { class: `curve plain ${goal ? "goal" : "other"}`, d: "M0 4H26", "stroke-dasharray": DASHES[order % DASHES.length] || "none" });
    title.append(element("span", {}, sample, element("span", { text: name })));
  });
  return title;
}

/* the cursor */

function at(run, x) { const xs = places(run); return xs.length ? nearest(xs, x) : -1; }

function drawCursor() {
  for (const panel of panels) {
    panel.over.querySelectorAll(".cursor, .dot").forEach((node) => node.remove());
    if (view.x === null) continue;
    const x = panel.at(view.x);
    if (x >= panel.left - 1 && x <= panel.right + 1) shape(panel.over, "line", { class: "cursor", x1: x, x2: x, y1: panel.top, y2: panel.bottom });
    for (const one of panel.series) {
      const i = nearest(one.xs, view.x);
      if (finite(one.ys[i]) && Number.isFinite(panel.height(one.ys[i])))
        shape(panel.over, "circle", { class: `dot run-${one.run % 8}`, r: 4, cx: panel.at(one.xs[i]), cy: panel.height(one.ys[i]) });
    }
  }
  readOut();
}

function readOut() {
  const rows = visible().filter(([run]) => run.epoch.length > 0).map(([run, r]) => {
    const i = view.x === null ? run.best ?? run.epoch.length - 1 : at(run, view.x);
    const where = counters.filter(([part]) => part !== "seconds").map(([part]) => `${part} ${run[part][i]}`);
    where.push(duration(run.seconds[i]));
    const list = element("dl");
    for (const name of [run.metric, ...Object.keys(run.values).filter((n) => n !== run.metric)])
      list.append(element("div", {}, element("dt", { text: name }), element("dd", { text: figure(run.values[name]?.[i]) })));
    const head = element("p", { className: "at" });
    if (runs.length > 1) head.append(swatch(r), element("strong", { text: run.name }));
    head.append(element("span", { className: "where", text: where.join(" · ") }));
    const row = element("div", {}, head, list);
    if (run.decisions[i]) row.append(element("p", { className: "said", text: run.decisions[i] }));
    return row;
  });
  get("readout").replaceChildren(...rows);
}

let waiting = null;
function moveTo(x) {
  view.x = x;
  waiting ??= requestAnimationFrame(() => { waiting = null; drawCursor(); });
}

function listen(host) {
  const pointed = (event) => {
    const panel = panels.find((one) => host.contains(one.svg));
    const bounds = panel.svg.getBoundingClientRect();
    const share = (event.clientX - bounds.left - panel.left) / (panel.right - panel.left);
    const [first, last] = domain();
    const wanted = first + Math.min(1, Math.max(0, share)) * (last - first);
    const candidates = visible().filter(([run]) => run.epoch.length).map(([run]) => places(run)[at(run, wanted)]);
    if (candidates.length) moveTo(candidates.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a)));
  };
  host.addEventListener("pointermove", pointed);
  host.addEventListener("pointerdown", pointed);
}

function stepped(event) {
  const known = visible().filter(([run]) => run.epoch.length);
  const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
  if (!known.length || !(event.key in moves)) return;
  event.preventDefault();
  const [run] = known.reduce((a, b) => (b[0].epoch.length > a[0].epoch.length ? b : a));
  const now = view.x === null ? run.best ?? 0 : at(run, view.x);
  moveTo(places(run)[Math.min(run.epoch.length - 1, Math.max(0, now + moves[event.key]))]);
}

/* what if */

function drawWhatIf() {
  if (!patiences.length) return;
  const chosen = Number(get("patience").value), n = patiences[chosen];
  const panel = panels[0];
  panel.over.querySelectorAll(".whatif, .flag, .flag-text").forEach((node) => node.remove());
  get("patience-value").textContent = n;
  get("patience").setAttribute("aria-valuetext", `patience ${n}`);
  let shown = false;
  const flags = [];
  const rows = visible().map(([run, r]) => {
    const [i, text] = run.whatif[chosen];
    if (i >= 0) {
      shown = true;
      const x = panel.at(places(run)[i]), group = shape(panel.over, "g", { class: `run-${r % 8}` });
      const raised = flags.filter((other) => Math.abs(other - x) < 30).length;
      flags.push(x);
      shape(group, "line", { class: "whatif", x1: x, x2: x, y1: panel.top, y2: panel.bottom, "data-run": r, "data-report": i });
      const middle = Math.min(panel.right - 14, Math.max(panel.left + 14, x));
      shape(group, "rect", { class: "flag", x: middle - 14, y: 3 + raised * 19, width: 28, height: 17, rx: 4 });
      shape(group, "text", { class: "flag-text", x: middle, y: 16 + raised * 19 }, n);
    }
    const row = element("li");
    if (runs.length > 1) row.append(swatch(r));
    row.append(element("span", { text: `${runs.length > 1 ? run.name : "It"} ${text}` }));
    if (run.caveat) row.lastChild.append(element("span", { className: "caveat", text: ` ${runs.length > 1 ? run.name : "It"} ${run.caveat}` }));
    return row;
  });
  get("whatif-text").replaceChildren(...rows);
  document.querySelector('[data-key="whatif"]').hidden = !shown;
}

/* the table of values, a page at a time */

const PAGE = 200;
const table = { run: 0, first: 0 };

function fillTable() {
  const run = runs[table.run], columns = Object.keys(run.values);
  const last = Math.min(table.first + PAGE, run.epoch.length);
  const cell = (name, text, number) => element(name, { text, className: number ? "number" : "long" });
  const head = element("tr", {}, ...[...counters.map(([, text]) => text), ...columns].map((text) => cell("th", text, true)), cell("th", "decided", false));
  const rows = [];
  for (let i = table.first; i < last; i++)
    rows.push(element("tr", {}, ...[...counters.map(([part]) => (part === "seconds" ? duration(run.seconds[i]) : run[part][i])), ...columns.map((name) => figure(run.values[name][i]))].map((text) => cell("td", text, true)), cell("td", run.decisions[i] ?? "", false)));
  get("values-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  get("values-range").textContent = run.epoch.length ? `reports ${table.first + 1} to ${last} of ${run.epoch.length}` : "no reports";
  get("values-earlier").disabled = table.first === 0;
  get("values-later").disabled = last >= run.epoch.length;
}

/* putting it together */

function start() {
  for (const id of ["controls", "key", "readout", "values", "theme"]) get(id).hidden = false;
  get("main-panel").append(heading(names[0]));
  for (const group of names.slice(1)) get("panels").append(element("div", { className: "panel" }, heading(group)));
  for (const host of [get("main-panel"), ...get("panels").children]) listen(host);

  get("axis").append(...counters.map(([value, text]) => element("option", { value, text })));
  get("axis").value = view.axis;
  get("axis").addEventListener("change", (event) => { view.axis = event.target.value; view.x = null; draw(); });
  get("log").addEventListener("change", (event) => { view.log = event.target.checked; draw(); });
  get("voided-label").hidden = !runs.some((run) => run.voided.length);
  get("voided").addEventListener("change", (event) => { view.voided = event.target.checked; draw(); });
  for (const box of document.querySelectorAll("input[data-run]"))
    box.addEventListener("change", () => {
      view.shown[Number(box.dataset.run)] = box.checked;
      box.closest("li").classList.toggle("off", !box.checked);
      draw();
    });
  for (const key of ["drops", "resumes"]) document.querySelector(`[data-key="${key}"]`).hidden = !runs.some((run) => run[key].length);
  document.querySelector('[data-key="stop"]').hidden = !runs.some((run) => run.stop !== null);

  if (patiences.length) {
    get("whatif").hidden = false;
    get("patience").max = patiences.length - 1;
    const own = runs.map((run) => patiences.indexOf(run.patience)).find((i) => i >= 0);
    get("patience").value = own ?? 0;
    get("patience").addEventListener("input", drawWhatIf);
  }

  get("values-run").append(...runs.map((run, r) => element("option", { value: r, text: run.name })));
  get("values-run-label").hidden = runs.length < 2;
  get("values-run").addEventListener("change", (event) => { table.run = Number(event.target.value); table.first = 0; fillTable(); });
  get("values-earlier").addEventListener("click", () => { table.first = Math.max(0, table.first - PAGE); fillTable(); });
  get("values-later").addEventListener("click", () => { table.first += PAGE; fillTable(); });
  get("values").querySelector("details").addEventListener("toggle", fillTable, { once: true });

  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const label = () => { get("theme").textContent = dark() ? "Light" : "Dark"; };
  get("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
  system.addEventListener("change", label);
  label();

  draw();
  const svg = panels[0].svg;
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", "Curves. Arrow keys move through the reports; what is there is told below.");
  svg.addEventListener("keydown", stepped);
  let width = 0;
  new ResizeObserver(() => {
    if (get("main-panel").clientWidth !== width) { width = get("main-panel").clientWidth; draw(); }
  }).observe(get("main-panel"));
}

start();
