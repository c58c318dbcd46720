// What is seen as a picture (SVG, PNG), and what was reported as CSV; made here, sent nowhere.

const KEPT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "opacity", "font-size", "font-family", "font-weight", "text-anchor", "paint-order"];

// A copy that needs no style sheet: every element with what the page's styles make of it.
function plainCopy(svg) {
  const copy = svg.cloneNode(true);
  const from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of KEPT) if (style.getPropertyValue(name)) to[i].setAttribute(name, style.getPropertyValue(name));
    to[i].removeAttribute("class");
  });
  copy.querySelectorAll("[data-passing]").forEach((node) => node.remove());
  return copy;
}

function picture() {
  const seen = panels.filter((panel) => panel !== null), width = seen[0].svg.viewBox.baseVal.width;
  const style = getComputedStyle(document.body), ink = style.color, paper = style.backgroundColor, font = style.fontFamily;
  const whole = document.createElementNS(SVG, "svg");
  const paint = shape(whole, "rect", { width: "100%", height: "100%", fill: paper });
  const write = (x, y, text, more = {}) => shape(whole, "text", { x, y, fill: ink, "font-size": 13, "font-family": font, ...more }, text);
  let y = 24, x = 12;
  const drawnRuns = visible().slice(0, 24);
  for (const [run, r] of drawnRuns) {
    const room = 24 + run.name.length * 7.5;
    if (x + room > width && x > 12) { x = 12; y += 20; }
    const sample = element("span", { className: `swatch ${colour(r)}` });
    document.body.append(sample);
    shape(whole, "circle", { cx: x + 5, cy: y - 4, r: 5, fill: getComputedStyle(sample).backgroundColor });
    sample.remove();
    write(x + 15, y, run.name, { "font-weight": 600 });
    x += room;
  }
  if (drawnRuns.length < visible().length) write(12, y += 20, `and ${visible().length - drawnRuns.length} more`);
  for (const panel of seen) {
    write(12, y += 26, panel.names.join(", "));
    const inner = plainCopy(panel.svg);
    for (const [name, value] of Object.entries({ x: 0, y: y += 8, width, height: panel.svg.viewBox.baseVal.height })) inner.setAttribute(name, value);
    whole.append(inner);
    y += panel.svg.viewBox.baseVal.height;
  }
  for (const [name, value] of Object.entries({ width, height: y + 8, viewBox: `0 0 ${width} ${y + 8}` })) whole.setAttribute(name, value);
  paint.setAttribute("height", y + 8);
  return whole;
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function saveSvg() {
  save(new Blob([new XMLSerializer().serializeToString(picture())], { type: "image/svg+xml" }), "curves.svg");
}

function savePng() {
  const whole = picture(), image = new Image(), scale = 2;
  const [width, height] = [whole.width.baseVal.value, whole.height.baseVal.value];
  image.onload = () => {
    const canvas = element("canvas", { width: width * scale, height: height * scale });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(blob, "curves.png"), "image/png");
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(whole))}`;
}

// A cell; a text that a spreadsheet would take for a formula begins with an apostrophe.
function cell(value) {
  if (value === null || value === undefined) return "";
  if (finite(value)) return String(value);
  const text = /^[\s]*[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const shown = visible().map(([run]) => run), metrics = [...new Set(shown.flatMap((run) => Object.keys(run.values)))];
  const rows = [["run", "epoch", "step", "seconds", ...metrics, "decided"]];
  for (const run of shown)
    run.epoch.forEach((_, i) => rows.push([run.name, placed(run, i), run.step[i], run.seconds[i], ...metrics.map((name) => run.values[name]?.[i]), run.decisions[i]]));
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function startExport() {
  get("save-svg").addEventListener("click", saveSvg);
  get("save-png").addEventListener("click", savePng);
  get("save-csv").addEventListener("click", () => save(new Blob([csv()], { type: "text/csv" }), "values.csv"));
}
