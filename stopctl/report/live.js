// A page that is served: it is loaded anew whenever its runs changed, and what was chosen in it stays.

const told = (text, wrong) => { get("live").textContent = text; get("live").classList.toggle("wrong", wrong); };

// Which parts are unfolded stays, and so does the place of the keyboard.
function replace(part, fresh) {
  if (part.innerHTML === fresh.innerHTML) return;
  const open = [...part.querySelectorAll("details")].map((one) => one.open);
  const focused = part.contains(document.activeElement) ? document.activeElement.dataset.run : undefined;
  part.replaceChildren(...fresh.childNodes);
  part.querySelectorAll("details").forEach((one, i) => { one.open = open[i] ?? one.open; });
  if (focused !== undefined) part.querySelector(`input[data-run="${Number(focused)}"]`)?.focus();
}

async function renew() {
  const text = await (await fetch("/", { cache: "no-store" })).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const before = new Map(runs.map((run, r) => [run.name, r])), patience = patiences[get("patience").value], valued = runs[table.run].name;
  const data = fresh.getElementById("data").textContent;
  for (const part of document.querySelectorAll("[data-part]")) replace(part, fresh.querySelector(`[data-part="${part.dataset.part}"]`));
  document.title = fresh.title;
  document.body.className = fresh.body.className;
  read(data);
  const places = new Map(chosen);
  chosen.clear();
  runs.forEach((run, r) => { if (places.has(before.get(run.name))) chosen.set(r, places.get(before.get(run.name))); });
  runs.forEach((run, r) => { if (!before.has(run.name) && chosen.size < COLOURS) choose(r, true); });
  table.run = Math.max(0, runs.findIndex((run) => run.name === valued));
  furnish();
  get("patience").value = Math.max(0, patiences.findIndex((n) => n >= patience));
  draw();
}

function follow() {
  const events = new EventSource("/events");
  let version = document.body.dataset.version, newest = version, busy = false;
  events.onmessage = async (event) => {
    told("live", false);
    newest = event.data;
    if (busy) return;  // one after the other, so that the newest one stays
    busy = true;
    try {
      while (version !== newest) { version = newest; await renew(); }
    } catch { told("the page could not be renewed", true); }
    busy = false;
  };
  events.onerror = () => told("no longer served: what you see is as it was then", true);
}

follow();
