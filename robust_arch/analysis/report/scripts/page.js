// The controls: each one changes the view, which is then rendered again.

let drawnWidth = 0;

function refresh() {
  const found = shownArchitectures();
  byId("group").value = view.group;
  for (const name of ["study", ...FACETS]) byId(name).value = view[name];
  byId("shown").textContent = `Shown: ${view.group === EVERY ? "every group, one after another" : groupName(view.group)}${narrowed()}.`;
  renderPlot(found);
  renderTable(found);
  showLink();
}

// the active filters in words, as a printed page does not show the controls
function narrowed() {
  const facets = ["study", ...FACETS].filter((name) => view[name]).map((name) => `${name} ${view[name]}`);
  const words = view.words.length ? [`"${view.words.join(" ")}" in their names`] : [];
  const only = [...facets, ...words];
  return only.length ? `; of these only rows with ${only.join(", ")}` : "";
}

// a closed fold would stay closed on paper, where it cannot be opened
function unfoldForPrint() {
  for (const fold of document.querySelectorAll(".verdicts details:not([open])")) {
    fold.open = true;
    addEventListener("afterprint", () => (fold.open = false), { once: true });
  }
}

function change(what) {
  Object.assign(view, { limit: PAGE }, what);
  refresh();
}

function fillControls() {
  const counts = new Map();
  rows.group.forEach((group) => counts.set(group, (counts.get(group) || 0) + 1));
  const present = [...counts.keys()].sort((one, other) => one - other);
  byId("group").append(
    ...present.map((group) => option(group, `${group === main ? "Main group: " : ""}${groupLabel(group)} (${plural(counts.get(group), "row")})`)),
    option(EVERY, "Every group, one after another"),
  );
  const offered = { study: study.studies.map((each) => each.name) };
  for (const name of FACETS) offered[name] = [...new Set(rows[name].map((place) => texts[place]))].filter((value) => value).sort();
  for (const [name, values] of Object.entries(offered)) {
    byId(name).append(option("", "any"), ...values.map((value) => option(value, value)));
    byId(name).addEventListener("change", (event) => chooseFacet(name, event.target.value));
    byId(name).parentElement.hidden = values.length < 2; // nothing to choose
  }
}

// if no row of the chosen group has the value, every group is shown, one after another
function chooseFacet(name, value) {
  view[name] = value;
  const inGroup = rows.group.some((group, row) => group === chosenGroup && hasFacets(row));
  change({ group: inGroup ? chosenGroup : EVERY });
}

function chooseGroup(group) {
  chosenGroup = group;
  change({ group });
}

function sortBy(place) {
  const again = view.column === place;
  Object.assign(view, { limit: PAGE, column: place, descending: again && !view.descending });
  renderTable(shownArchitectures());
  showLink();
  byId("rows").tHead.querySelector(`[data-column="${place}"]`).focus();
}

function fold(place) {
  const name = nameAt(place);
  if (!view.open.delete(name)) view.open.add(name);
  renderTable(shownArchitectures());
  showLink();
  byId("rows").querySelector(`[data-fold="${place}"]`).focus();
}

function foldAll() {
  const names = shownArchitectures().map(nameAt);
  const open = names.every((name) => view.open.has(name));
  for (const name of names) open ? view.open.delete(name) : view.open.add(name);
  renderTable(shownArchitectures());
  showLink();
}

function listenToControls() {
  byId("group").addEventListener("change", (event) => chooseGroup(Number(event.target.value)));
  byId("filter").addEventListener("input", (event) =>
    change({ words: wordsOf(event.target.value) }),
  );
  for (const name of CHOICES)
    byId(name).addEventListener("change", () => {
      renderPlot(shownArchitectures());
      showLink();
    });
  byId("unfold").addEventListener("click", foldAll);
  byId("more").addEventListener("click", () => {
    view.limit += PAGE;
    extendTable(shownArchitectures());
    if (byId("more").hidden) byId("rows").parentElement.focus(); // the button is gone, and its focus with it
  });
  byId("rows").addEventListener("click", (event) => {
    const { column, fold: place, card, open } = event.target.dataset;
    if (column !== undefined) sortBy(Number(column));
    if (place !== undefined) fold(Number(place));
    if (card !== undefined) openCard(architectures.rows[card]);
    if (open !== undefined) openCard([Number(open)]);
  });
}

function listenToPlot() {
  const plot = byId("plot"); // not the drawing itself, which would become a tab stop with a focus listener
  const onMark = (handle) => (event) => {
    const node = event.target.closest("[data-mark]");
    if (node) handle(node, event);
  };
  plot.addEventListener("pointerover", onMark(tell));
  plot.addEventListener("focusin", onMark(tell));
  for (const event of ["pointerout", "focusout"]) plot.addEventListener(event, hideTip);
  plot.addEventListener("click", onMark((node) => openCard(marks[node.dataset.mark].rows)));
  plot.addEventListener("keydown", onMark(pressed));
  new ResizeObserver(redrawn).observe(byId("explorer"));
}

// draw again only for a new width: a longer table must not take the focus from a point
function redrawn() {
  const width = byId("explorer").clientWidth;
  if (width === drawnWidth) return;
  drawnWidth = width;
  renderPlot(shownArchitectures());
}

function pressed(node, event) {
  if (event.key === "Escape") hideTip();
  const opens = event.key === "Enter" || event.key === " ";
  if (opens) openCard(marks[node.dataset.mark].rows);
  if (opens || step(node, event.key)) event.preventDefault();
}

function restoreView() {
  if (!restore()) return;
  byId("filter").value = view.words.join(" ");
  refresh();
}

const firstChoice = {
  cost: study.cost,
  unit: architectures.rows.some((members) => members.length > 1) ? "architecture" : "run",
};

if (rows.run.length) {
  fillControls();
  listenToControls();
  byId("explorer").hidden = false;
  byId("static").hidden = true;
  for (const name of CHOICES) byId(name).value = firstChoice[name];
  drawnWidth = byId("explorer").clientWidth;
  const linked = restore();
  byId("filter").value = view.words.join(" ");
  refresh();
  if (linked) byId("results").scrollIntoView();
  listenToPlot();
  addEventListener("hashchange", restoreView);
  addEventListener("beforeprint", unfoldForPrint);
}
listenToDownloads();
for (const node of document.querySelectorAll(".scripted")) node.hidden = false;
