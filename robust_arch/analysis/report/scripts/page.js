// The controls: each one changes the view, which is then rendered again.

let drawnWidth = 0;

function refresh() {
  const found = shownRows();
  byId("group").value = view.group;
  byId("shown").textContent = `Shown: ${view.group === EVERY ? "every group, one after another" : groupName(view.group)}${narrowed()}.`;
  renderPlot(found);
  renderTable(found);
}

// the active filters in words, as a printed page does not show the controls
function narrowed() {
  const facets = FACETS.filter((name) => view[name]).map((name) => `${name} ${view[name]}`);
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
  const label = (group) => (group === WITHOUT_NUMBERS ? study.without : groups[group].short);
  const present = [...counts.keys()].sort((one, other) => one - other);
  byId("group").append(
    ...present.map((group) => option(group, `${group === main ? "Main group: " : ""}${label(group)} (${plural(counts.get(group), "row")})`)),
    option(EVERY, "Every group, one after another"),
  );
  for (const name of FACETS) {
    const values = [...new Set(rows[name].map((place) => texts[place]))].filter((value) => value).sort();
    byId(name).append(option("", "any"), ...values.map((value) => option(value, value)));
    byId(name).addEventListener("change", (event) => chooseFacet(name, event.target.value));
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
  renderTable(shownRows());
  byId("rows").tHead.querySelector(`[data-column="${place}"]`).focus();
}

function listenToControls() {
  byId("group").addEventListener("change", (event) => chooseGroup(Number(event.target.value)));
  byId("filter").addEventListener("input", (event) =>
    change({ words: event.target.value.toLowerCase().split(/\s+/).filter((word) => word) }),
  );
  for (const name of ["cost", "unit"]) byId(name).addEventListener("change", () => renderPlot(shownRows()));
  byId("more").addEventListener("click", () => {
    view.limit += PAGE;
    extendTable(shownRows());
    if (byId("more").hidden) byId("rows").parentElement.focus(); // the button is gone, and its focus with it
  });
  byId("rows").addEventListener("click", (event) => {
    const { column, open } = event.target.dataset;
    if (column !== undefined) sortBy(Number(column));
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
  renderPlot(shownRows());
}

function pressed(node, event) {
  if (event.key === "Escape") hideTip();
  const opens = event.key === "Enter" || event.key === " ";
  if (opens) openCard(marks[node.dataset.mark].rows);
  if (opens || step(node, event.key)) event.preventDefault();
}

if (rows.run.length) {
  fillControls();
  listenToControls();
  byId("explorer").hidden = false;
  byId("static").hidden = true;
  byId("unit").value = groups.some((group) => group.points.some((point) => point.rows.length > 1)) ? "architecture" : "run";
  drawnWidth = byId("explorer").clientWidth;
  refresh();
  listenToPlot();
  addEventListener("beforeprint", unfoldForPrint);
}
