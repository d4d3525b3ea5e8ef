// Files made from what the page holds: tables as CSV, figures as SVG and PNG. Nothing is fetched.

const PNG_SCALE = 2;
const INLINED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "fill-opacity", "font", "color"];

function save(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function csv(lines) {
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

// a text that a spreadsheet would take for a formula is marked as text
function quoted(value) {
  const text = value === null || value === "-" ? "" : `${value}`;
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function saveArchitectures() {
  const found = shownArchitectures();
  const shown = columnsOf(found);
  const scatters = (column) => column.values && column.means.sd.some((sd) => sd !== null);
  const head = shown.flatMap((column) => {
    const name = column === seedColumn ? "seeds" : column.heading;
    return scatters(column) ? [name, `${name}, standard deviation`] : [name];
  });
  const cells = (place) => shown.flatMap((column) => {
    const { cells, values, sd } = column.means;
    return scatters(column) ? [values[place], sd[place]] : [values ? values[place] : texts[cells[place]]];
  });
  const line = (place) => [groupName(architectures.group[place]), ...cells(place), architectures.low[place], architectures.high[place]];
  const ends = ["worst case: 95% interval from", "to"];
  save("architectures.csv", csv([["group", ...head, ...ends], ...found.map(line)]), "text/csv");
}

function saveRuns() {
  const members = shownArchitectures().flatMap((place) => architectures.rows[place]);
  const cells = (row) => columns.map((column) => (column.values ? column.values[row] : texts[column.cells[row]]));
  save("runs.csv", csv([columns.map((column) => column.heading), ...members.map(cells)]), "text/csv");
}

// a copy that needs no style sheet, in the colours of the page
function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const originals = [drawing, ...drawing.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, place) => {
    const style = getComputedStyle(originals[place]);
    // what is defined for later use has the colours of where it is used, but for those that it names itself
    const names = node.closest("defs") ? INLINED.filter((name) => node.style.getPropertyValue(name)) : INLINED;
    for (const name of names) node.style.setProperty(name, style.getPropertyValue(name));
  });
  const [, , width, height] = drawing.getAttribute("viewBox").split(" ");
  for (const [name, value] of Object.entries({ xmlns: drawing.namespaceURI, width, height })) copy.setAttribute(name, value);
  const paper = getComputedStyle(document.body).backgroundColor;
  copy.prepend(draw("rect", { width, height, style: `fill: ${paper}; stroke: none` }));
  return { text: new XMLSerializer().serializeToString(copy), width: Number(width), height: Number(height) };
}

function savePicture(drawing, name, kind) {
  const { text, width, height } = standalone(drawing);
  if (kind === "svg") return save(`${name}.svg`, text, "image/svg+xml");
  const picture = new Image();
  picture.addEventListener("load", () => {
    const canvas = make("canvas", { width: PNG_SCALE * width, height: PNG_SCALE * height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((content) => save(`${name}.png`, content, "image/png"));
  });
  picture.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
}

function listenToDownloads() {
  document.addEventListener("click", (event) => {
    const { save: name, kind } = event.target.dataset;
    if (name === undefined) return;
    if (name === "architectures") saveArchitectures();
    else if (name === "runs") saveRuns();
    else savePicture(event.target.closest("figure, section").querySelector("svg"), name, kind);
  });
}
