// The page: the data, what is seen of it, the cursor and what it reads, the slider, the table of values.

let runs, patiences, names, counters;
const get = (id) => document.getElementById(id);
const view = { axis: "epoch", log: false, voided: false, robust: true, smooth: 0, zoom: null, x: null };
let panels = [];

function read(text) {
  ({ runs, patiences } = JSON.parse(text));
  // A metric or a note may be called as what every object has, "constructor" say.
  for (const run of runs) for (const named of [run.notes, run.values, ...run.voided.map((part) => part.values)]) Object.setPrototypeOf(named, null);
  countGoals();
  names = groups();
  // The counters that count anything: a loop over steps has no epochs, one over epochs may count no steps.
  const counts = (part) => runs.some((run) => run[part].at(-1) > 0 || (part === "epoch" && run.at?.at(-1) > 0));
  counters = [["epoch", "epoch"], ["step", "step"], ["seconds", "time"]].filter(([part]) => counts(part));
  if (!counters.length) counters = [["epoch", "epoch"]];
}

// Metrics with one last word ("loss" of train_loss and val_loss) share a panel; the goal's comes first.
function groups() {
  const found = new Map();
  for (const run of runs)
    for (const name of [goals[0].slice(4), run.metric, ...Object.keys(run.values).sort()]) {
      const last = name.split(/[^A-Za-z0-9]+/).filter(Boolean).pop()?.toLowerCase() ?? name;
      if (!found.has(last)) found.set(last, []);
      if (!found.get(last).includes(name)) found.get(last).push(name);
    }
  return [...found.values()];
}

const swatch = (r) => element("span", { className: `swatch ${colour(r)}` });
const visible = () => runs.map((run, r) => [run, r]).filter(([, r]) => isDrawn(r));
// A report inside an epoch stands where its step is in it.
const places = (part) => (view.axis === "epoch" ? part.at ?? part.epoch : part[view.axis]);
const placed = (part, i) => Number(((part.at ?? part.epoch)[i]).toFixed(4));

function seriesOf(group) {
  const found = [];
  for (const [run, r] of visible())
    group.forEach((name, order) => {
      const common = { run: r, colour: colour(r), name, order };
      if (!(name in run.values)) return;
      const goal = name === run.metric;
      found.push({ ...common, goal, xs: places(run), ys: run.values[name], marks: goal ? run : null });
      for (const part of run.voided)
        if (name in part.values) found.push({ ...common, goal: false, voided: true, xs: places(part), ys: part.values[name] });
    });
  return found;
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

const isOpen = (host) => host.closest("details")?.open ?? true;

function draw() {
  const options = {
    ...view, window: view.zoom ?? domain(), whole: view.axis !== "seconds", title: { epoch: "epoch", step: "step", seconds: "time" }[view.axis],
    tick: view.axis === "seconds" ? duration : counted, crowded: chosen.size,
  };
  panels = names.map((group, g) => {
    const host = g === 0 ? get("main-panel") : get("panels").children[g - 1];
    return isOpen(host) ? { ...drawPanel(host, seriesOf(group), { ...options, main: g === 0 }), names: group } : null;
  });
  get("whole").hidden = view.zoom === null;
  get("robust-label").hidden = view.robust && !panels.some((panel) => panel?.outliers);
  const has = (mark) => document.querySelector(`.panel [data-mark="${mark}"]`) !== null;
  for (const mark of ["best", "kept", "saved", "drop", "resume", "stop", "nonfinite", "outlier"]) document.querySelector(`[data-key="${mark}"]`).hidden = !has(mark);
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
  for (const panel of panels.filter(Boolean)) {
    panel.over.querySelectorAll(".cursor, .dot").forEach((node) => node.remove());
    if (view.x === null) continue;
    const x = panel.at(view.x);
    if (x < panel.left - 1 || x > panel.right + 1) continue;
    shape(panel.over, "line", { class: "cursor", x1: x, x2: x, y1: panel.top, y2: panel.bottom, "data-passing": "" });
    for (const one of panel.series) {
      const i = nearest(one.xs, view.x), y = finite(one.ys[i]) ? panel.height(one.ys[i]) : NaN;
      if (y >= panel.top - 1 && y <= panel.bottom + 1)
        shape(panel.over, "circle", { class: `dot ${one.colour}`, r: 4, cx: panel.at(one.xs[i]), cy: y, "data-passing": "" });
    }
  }
  readOut();
}

function readOut() {
  const reported = visible().filter(([run]) => run.epoch.length > 0), brief = reported.length > 3;
  const rows = reported.slice(0, 2 * COLOURS).map(([run, r]) => {
    const i = view.x === null ? run.best ?? run.epoch.length - 1 : at(run, view.x);
    const where = counters.filter(([part]) => part !== "seconds" && (!brief || part === run.unit)).map(([part]) => `${part} ${part === "epoch" ? counted(placed(run, i)) : run[part][i]}`);
    if (!brief) where.push(duration(run.seconds[i]));
    const list = element("dl");
    for (const name of [run.metric, ...(brief ? [] : Object.keys(run.values).filter((n) => n !== run.metric))])
      list.append(element("div", {}, element("dt", { text: name }), element("dd", { text: figure(run.values[name]?.[i]) })));
    const head = element("p", { className: "at" });
    if (runs.length > 1) head.append(swatch(r), element("strong", { text: run.name }));
    head.append(element("span", { className: "where", text: where.join(" · ") }));
    const row = element("div", {}, head, list);
    if (!brief && run.decisions[i]) row.append(element("p", { className: "said", text: run.decisions[i] }));
    return row;
  });
  get("readout").classList.toggle("brief", brief);
  if (brief && view.x === null) rows.splice(0, rows.length, element("p", { className: "hint", text: "Point at the curves to read them; drag to zoom." }));
  get("readout").replaceChildren(...rows);
}

let waiting = null;
function moveTo(x) {
  view.x = x;
  waiting ??= requestAnimationFrame(() => { waiting = null; drawCursor(); });
}

/* what if */

function drawWhatIf() {
  if (!patiences.length) return;
  const number = Number(get("patience").value), n = patiences[number];
  const panel = panels[0];
  panel.over.querySelectorAll(".whatif, .flag, .flag-text").forEach((node) => node.remove());
  get("patience-value").textContent = n;
  get("patience").setAttribute("aria-valuetext", `patience ${n}`);
  let shown = false;
  const flags = [];
  const rows = visible().map(([run, r]) => {
    const [i, text] = run.whatif[Math.min(number, run.whatif.length - 1)];
    const x = i < 0 ? NaN : panel.at(places(run)[i]);
    if (x >= panel.left - 1 && x <= panel.right + 1 && isOpen(get("whatif"))) {
      shown = true;
      const group = shape(panel.over, "g", { class: colour(r) });
      const raised = flags.filter((other) => Math.abs(other - x) < 30).length;
      flags.push(x);
      shape(group, "line", { class: "whatif", x1: x, x2: x, y1: panel.top, y2: panel.bottom, "data-run": r, "data-report": i });
      if (raised < 4) {
        const middle = Math.min(panel.right - 14, Math.max(panel.left + 14, x));
        shape(group, "rect", { class: "flag", x: middle - 14, y: 3 + raised * 19, width: 28, height: 17, rx: 4 });
        shape(group, "text", { class: "flag-text", x: middle, y: 16 + raised * 19 }, n);
      }
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
  if (!isOpen(get("values-table"))) return;
  const run = runs[table.run], columns = Object.keys(run.values);
  const last = Math.min(table.first + PAGE, run.epoch.length);
  const titles = [...counters.map(([, text]) => text), ...columns];
  const made = (name, text, number, label) => {
    const found = element(name, { text, className: number ? "number" : "long" });
    if (label) found.dataset.label = label;
    return found;
  };
  const counter = (part, i) => (part === "seconds" ? duration(run.seconds[i]) : part === "epoch" ? counted(placed(run, i)) : run[part][i]);
  const rows = [];
  for (let i = table.first; i < last; i++) {
    const texts = [...counters.map(([part]) => counter(part, i)), ...columns.map((name) => figure(run.values[name][i]))];
    rows.push(element("tr", {}, ...texts.map((text, n) => made("td", text, true, titles[n])), made("td", run.decisions[i] ?? "", false)));
  }
  const head = element("tr", {}, ...titles.map((text) => made("th", text, true)), made("th", "decided", false));
  get("values-table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  const thin = run.reports > run.epoch.length ? `, of ${run.reports} in the journal: the lowest, the highest and the marked ones` : "";
  get("values-range").textContent = run.epoch.length ? `reports ${table.first + 1} to ${last} of ${run.epoch.length}${thin}` : "no reports";
  get("values-earlier").disabled = table.first === 0;
  get("values-later").disabled = last >= run.epoch.length;
}

/* putting it together */

// What follows from the data alone; again when a page that is served has newer ones.
function furnish() {
  for (const old of document.querySelectorAll("#main-panel > h3, #panels > *")) old.remove();
  get("main-panel").prepend(heading(names[0]));
  for (const group of names.slice(1)) get("panels").append(element("div", { className: "panel" }, heading(group)));
  for (const host of get("panels").children) listen(host);
  get("more").hidden = names.length < 2;
  get("more-count").textContent = names.length < 2 ? "" : names.slice(1).flat().length;
  get("axis").replaceChildren(...counters.map(([value, text]) => element("option", { value, text })));
  if (!counters.some(([value]) => value === view.axis)) view.axis = counters[0][0];
  get("axis").value = view.axis;
  get("voided-label").hidden = !runs.some((run) => run.voided.length);
  get("whatif").hidden = !patiences.length;
  get("patience").max = Math.max(0, patiences.length - 1);
  get("values-run").replaceChildren(...runs.map((run, r) => element("option", { value: r, text: run.name })));
  get("values-run").value = table.run;
  get("values-run-label").hidden = runs.length < 2;
  furnishRuns();
  fillTable();
}

function start() {
  read(get("data").textContent);
  for (const id of ["controls", "key", "readout", "values", "theme"]) get(id).hidden = false;
  if (matchMedia("(max-width: 40rem)").matches && document.body.classList.contains("many")) get("controls-fold").open = false;
  startRuns();
  startExport();
  furnish();
  listen(get("main-panel"));
  const own = runs.map((run) => patiences.indexOf(run.patience)).find((i) => i >= 0);
  get("patience").value = own ?? 0;
  get("patience").addEventListener("input", drawWhatIf);

  get("axis").addEventListener("change", (event) => { view.axis = event.target.value; view.x = view.zoom = null; draw(); });
  for (const name of ["log", "voided", "robust"])
    get(name).addEventListener("change", (event) => { view[name] = event.target.checked; draw(); });
  get("smooth").addEventListener("input", (event) => {
    view.smooth = Number(event.target.value);
    event.target.setAttribute("aria-valuetext", view.smooth ? `average with ${view.smooth}` : "off");
    draw();
  });
  get("whole").addEventListener("click", () => zoomTo(null));
  get("controls").addEventListener("submit", (event) => event.preventDefault());
  get("values-run").addEventListener("change", (event) => { table.run = Number(event.target.value); table.first = 0; fillTable(); });
  get("values-earlier").addEventListener("click", () => { table.first = Math.max(0, table.first - PAGE); fillTable(); });
  get("values-later").addEventListener("click", () => { table.first += PAGE; fillTable(); });
  get("values").addEventListener("toggle", fillTable);
  for (const id of ["more", "whatif"]) get(id).addEventListener("toggle", draw);

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
  svg.setAttribute("aria-label", "Curves. Arrow keys move through the reports; what is there is told below. Plus, minus and 0 zoom.");
  svg.addEventListener("keydown", keyed);
  let width = 0;
  new ResizeObserver(() => {
    if (get("main-panel").clientWidth !== width) { width = get("main-panel").clientWidth; draw(); }
  }).observe(get("main-panel"));
}

start();
