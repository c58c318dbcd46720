// The table of several runs: which are listed, in which order, which are drawn, and in which colour.

const COLOURS = 8;
const chosen = new Map();  // the runs that are drawn, and the place each has among the colours

const bestFirst = (a, b) => {
  const signed = (run) => (run.value === null ? Infinity : run.mode === "max" ? -run.value : run.value);
  return goals.indexOf(goalOf(a)) - goals.indexOf(goalOf(b)) || signed(a) - signed(b) || byName(a, b);
};
let goals = [];  // the most frequent one first
const goalOf = (run) => `${run.mode} ${run.metric}`;
const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
const isDrawn = (r) => chosen.has(r);

function choose(r, yes) {
  if (!yes) { chosen.delete(r); return; }
  if (chosen.has(r)) return;
  const taken = new Set(chosen.values());
  let place = 0;
  while (taken.has(place)) place++;
  chosen.set(r, place);
}

// All where they are few, else the best few of each goal.
function bestFew(among) {
  if (among.length <= COLOURS) return among;
  const few = Math.max(1, Math.min(5, Math.floor(COLOURS / goals.length)));
  const ranked = among.filter((r) => runs[r].value !== null).sort((a, b) => bestFirst(runs[a], runs[b]));
  return goals.flatMap((goal) => ranked.filter((r) => goalOf(runs[r]) === goal).slice(0, few));
}

function countGoals() {
  const count = (goal) => runs.filter((run) => goalOf(run) === goal).length;
  goals = [...new Set(runs.map(goalOf))].sort((a, b) => count(b) - count(a));
}

/* colours */

let shades = null;  // by the values of a note: {class of each run, what the key says}

function colour(r) {
  return shades ? shades.of[r] : `run-${(chosen.get(r) ?? 0) % COLOURS}`;
}

function colourBy(note) {
  shades = null;
  if (!note) return;
  const values = runs.map((run) => run.notes[note] ?? null);
  const known = [...new Set(values.filter((value) => value !== null))];
  const key = [];
  let name;
  if (known.every(finite)) {  // from the smallest to the largest; where they are many, by ranks
    known.sort((a, b) => a - b);
    const place = (value) => known.length < 2 ? 0 : Math.round((known.indexOf(value) / (known.length - 1)) * (COLOURS - 1));
    name = (value) => `shade-${place(value)}`;
    for (let n = 0; n < COLOURS; n++) {
      const here = known.filter((value) => place(value) === n);
      if (here.length) key.push([`shade-${n}`, here.length > 1 ? `${figure(here[0])} to ${figure(here.at(-1))}` : figure(here[0])]);
    }
  } else {  // the most frequent ones have colours of their own
    const count = (value) => values.filter((other) => other === value).length;
    known.sort((a, b) => count(b) - count(a) || String(a).localeCompare(String(b)));
    const place = (value) => known.length <= COLOURS ? known.indexOf(value) : Math.min(known.indexOf(value), COLOURS - 1);
    name = (value) => `run-${place(value)}`;
    const own = known.length <= COLOURS ? known.length : COLOURS - 1;
    for (const value of known.slice(0, own)) key.push([name(value), String(value)]);
    if (own < known.length) key.push([`run-${COLOURS - 1}`, `${known.length - own} others`]);
  }
  if (values.includes(null)) key.push(["run-none", "none"]);
  shades = { of: values.map((value) => (value === null ? "run-none" : name(value))), key };
}

/* order and filter */

const order = { column: null, down: false };

// What a filter's word names: a note, or one of the columns.
function field(run, name) {
  const found = Object.keys(run.notes).find((note) => note.toLowerCase() === name);
  if (found !== undefined) return run.notes[found];
  return { run: run.name, best: run.value, epoch: run.epoch.at(-1) ?? 0, step: run.step.at(-1) ?? 0, state: run.state, metric: run.metric }[name];
}

const COMPARE = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
};

function passes(run, words) {
  return words.every((word) => {
    const parts = /^([^<>=!]+)(<=|>=|!=|=|<|>)(.+)$/.exec(word);
    if (!parts) return [run.name, run.state, run.reason, ...Object.entries(run.notes).flat()].some((text) => String(text).toLowerCase().includes(word));
    const value = field(run, parts[1]);
    if (value === undefined || value === null) return false;
    const wanted = Number(parts[3]);
    return finite(value) && !Number.isNaN(wanted) ? COMPARE[parts[2]](value, wanted) : COMPARE[parts[2]](String(value).toLowerCase(), parts[3]);
  });
}

const rowsOf = () => [...document.querySelectorAll("#runs-table tbody tr")];
const listed = () => rowsOf().filter((row) => !row.hidden).map((row) => Number(row.dataset.run));

function arrange() {
  const words = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = rowsOf();
  for (const row of rows) row.hidden = !passes(runs[row.dataset.run], words);
  if (order.column !== null) {
    const by = order.column === "run" ? byName : order.column === "best" ? bestFirst : (a, b) => compared(field(a, order.column), field(b, order.column)) || byName(a, b);
    rows.sort((a, b) => (order.down ? -1 : 1) * by(runs[a.dataset.run], runs[b.dataset.run]));
    rows[0]?.parentNode.append(...rows);
  }
  for (const head of document.querySelectorAll("#runs-table th[data-sort]"))
    head.setAttribute("aria-sort", head.dataset.sort !== order.column ? "none" : order.down ? "descending" : "ascending");
  tellChoice();
}

function compared(a, b) {
  if (a === undefined || b === undefined || a === null || b === null) return (a === undefined || a === null) - (b === undefined || b === null);
  return finite(a) && finite(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function tellChoice() {
  const rows = rowsOf();
  for (const row of rows) {
    const r = Number(row.dataset.run), yes = isDrawn(r);
    row.querySelector("input").checked = yes;
    row.classList.toggle("off", !yes);
    row.querySelector(".swatch").className = `swatch ${yes ? colour(r) : ""}`;
  }
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = !isDrawn(Number(part.dataset.of));
  for (const caption of document.querySelectorAll("[data-of] h3 .swatch"))
    caption.className = `swatch ${colour(Number(caption.closest("[data-of]").dataset.of))}`;
  const count = rows.filter((row) => !row.hidden).length;
  get("choice").textContent = `${chosen.size} of ${runs.length} drawn${count < runs.length ? `, ${count} listed` : ""}`;
  get("colour-key").replaceChildren(...(shades?.key ?? []).map(([name, text]) => element("li", {}, element("span", { className: `swatch ${name}` }), element("span", { text }))));
}

function startRuns() {
  const redraw = (found) => { if (found) { chosen.clear(); for (const r of found) choose(r, true); } tellChoice(); draw(); };
  for (const r of bestFew(runs.map((_, r) => r))) choose(r, true);
  get("runs").addEventListener("change", (event) => {
    if (event.target.dataset.run === undefined) return;
    choose(Number(event.target.dataset.run), event.target.checked);
    redraw();
  });
  get("runs").addEventListener("click", (event) => {
    const head = event.target.closest("th[data-sort] button")?.closest("th");
    if (!head) return;
    order.down = order.column === head.dataset.sort && !order.down;
    order.column = head.dataset.sort;
    arrange();
  });
  get("filter").addEventListener("input", arrange);
  get("runs-controls").addEventListener("submit", (event) => event.preventDefault());
  get("choose-best").addEventListener("click", () => redraw(bestFew(listed())));
  get("choose-all").addEventListener("click", () => redraw(listed()));
  get("choose-none").addEventListener("click", () => redraw([]));
  get("colour").addEventListener("change", (event) => { colourBy(event.target.value); redraw(); });
  if (runs.length > COLOURS) order.column = "best";
}

// What follows from the data: which notes differ, and the table as it was arranged.
function furnishRuns() {
  const wanted = get("colour").value;
  const notes = [...new Set(runs.flatMap((run) => Object.keys(run.notes)))].filter((note) => new Set(runs.map((run) => run.notes[note] ?? null)).size > 1);
  get("colour-label").hidden = !notes.length;
  get("colour").replaceChildren(element("option", { value: "", text: "run" }), ...notes.map((note) => element("option", { value: note, text: note })));
  get("runs-controls").hidden = runs.length <= 3;
  get("colour").value = notes.includes(wanted) ? wanted : "";
  colourBy(get("colour").value);
  if (runs.length > 1) arrange();
}
