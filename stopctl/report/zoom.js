// Pointing at the curves, dragging over a stretch of them, and the keys that do the same.

function zoomTo(window) {
  const [first, last] = domain();
  view.zoom = window === null ? null : [Math.max(first, window[0]), Math.min(last, window[1])];
  if (view.zoom !== null && (view.zoom[1] - view.zoom[0] >= (last - first) * 0.9999 || view.zoom[0] >= view.zoom[1])) view.zoom = null;
  draw();
}

// Half or twice of what is seen, around the cursor.
function zoomBy(factor) {
  const [first, last] = view.zoom ?? domain(), centre = view.x ?? (first + last) / 2, half = ((last - first) * factor) / 2;
  zoomTo([centre - half, centre + half]);
}

const DRAG = 6;  // pixels from which on a move is a drag

function listen(host) {
  let from = null;
  const panelHere = () => panels.find((one) => one !== null && host.contains(one.svg));
  const placeOf = (event, panel) => {
    const bounds = panel.svg.getBoundingClientRect();
    const share = (event.clientX - bounds.left - panel.left) / (panel.right - panel.left);
    return panel.window[0] + Math.min(1, Math.max(0, share)) * (panel.window[1] - panel.window[0]);
  };
  const clear = () => { for (const panel of panels.filter(Boolean)) panel.over.querySelectorAll(".selection").forEach((node) => node.remove()); };
  const dragged = (event) => from !== null && Math.abs(event.clientX - from.pixel) >= DRAG;
  host.addEventListener("pointermove", (event) => {
    const panel = panelHere();
    if (!panel) return;
    const wanted = placeOf(event, panel);
    if (dragged(event)) {
      clear();
      for (const one of panels.filter(Boolean)) {
        const [a, b] = [from.x, wanted].sort((p, q) => p - q).map(one.at);
        shape(one.over, "rect", { class: "selection", x: a, width: b - a, y: one.top, height: one.bottom - one.top, "data-passing": "" });
      }
      return;
    }
    const candidates = visible().filter(([run]) => run.epoch.length).map(([run]) => places(run)[at(run, wanted)]);
    if (candidates.length) moveTo(candidates.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a)));
  });
  host.addEventListener("pointerdown", (event) => {
    const panel = panelHere();
    if (!panel || event.button !== 0 || !panel.svg.contains(event.target)) return;
    from = { x: placeOf(event, panel), pixel: event.clientX };
    host.setPointerCapture?.(event.pointerId);
    host.dispatchEvent(new PointerEvent("pointermove", event));
  });
  host.addEventListener("pointerup", (event) => {
    const panel = panelHere(), drag = panel && dragged(event) && [from.x, placeOf(event, panel)].sort((a, b) => a - b);
    from = null;
    clear();
    if (drag) zoomTo(drag);
  });
  host.addEventListener("pointercancel", () => { from = null; clear(); });
  host.addEventListener("dblclick", (event) => { if (!event.target.closest("button, h3")) zoomTo(null); });
}

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const zooms = { "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2), 0: () => zoomTo(null), Escape: () => zoomTo(null) };
  const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
  const known = visible().filter(([run]) => run.epoch.length);
  if (!known.length || !(event.key in zooms || event.key in moves)) return;
  event.preventDefault();
  if (event.key in zooms) { zooms[event.key](); return; }
  const [run] = known.reduce((a, b) => (b[0].epoch.length > a[0].epoch.length ? b : a));
  const now = view.x === null ? run.best ?? 0 : at(run, view.x);
  const x = places(run)[Math.min(run.epoch.length - 1, Math.max(0, now + moves[event.key]))];
  if (view.zoom !== null && (x < view.zoom[0] || x > view.zoom[1])) {  // what is seen goes along
    const by = x < view.zoom[0] ? x - view.zoom[0] : x - view.zoom[1];
    zoomTo([view.zoom[0] + by, view.zoom[1] + by]);
  }
  moveTo(x);
}
