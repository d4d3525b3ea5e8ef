// The table: one row per architecture, which unfolds to its runs; headings sort; one page of rows at a time.

function renderTable(found) {
  byId("rows").tHead.replaceChildren(make("tr", {}, ...columnsOf(found).map(heading)));
  byId("rows").tBodies[0].replaceChildren();
  extendTable(found);
}

// adds the rows within the limit that are not in the table yet
function extendTable(found) {
  const body = byId("rows").tBodies[0];
  const written = body.querySelectorAll("[data-architecture]").length;
  const shown = found.slice(0, view.limit);
  body.append(...lines(shown, written, columnsOf(found)));
  byId("more").hidden = shown.length === found.length;
  byId("more").textContent = `Show more rows (${(found.length - shown.length).toLocaleString("en-US")} left)`;
  byId("count").textContent = counted(found, shown);
  const folded = found.some((place) => !view.open.has(nameAt(place)));
  byId("unfold").textContent = folded ? "Unfold all seeds" : "Fold all seeds";
}

// what all rows of a group share is said above the table; only other states than completed are of interest
function columnsOf(found) {
  const members = found.flatMap((place) => architectures.rows[place]);
  const lost = members.some((row) => texts[rows.status[row]] !== "completed");
  return columns.filter((column) => {
    if (column.names) return true;
    if (column === runColumn || column.of_group) return false;
    if (column.heading === "status") return lost;
    return members.some((row) => texts[column.cells[row]] !== "-");
  });
}

function heading(column) {
  const place = columns.indexOf(column);
  const order = view.column !== place ? "none" : view.descending ? "descending" : "ascending";
  const text = column === seedColumn ? "seeds" : column.heading;
  const button = make("button", { type: "button", "data-column": place }, text);
  return make("th", { scope: "col", class: `sortable ${kind(column)}`, "aria-sort": order }, button);
}

function kind(column) {
  return column.values ? "number" : "text";
}

function lines(shown, from, visible) {
  const added = [];
  for (let at = from; at < shown.length; at += 1) {
    const group = architectures.group[shown[at]];
    const begins = at === 0 || group !== architectures.group[shown[at - 1]];
    if (view.group === EVERY && begins) added.push(band(group, visible.length));
    added.push(line(shown[at], visible));
    if (view.open.has(nameAt(shown[at]))) added.push(...runLines(shown[at], visible));
  }
  return added;
}

function band(group, span) {
  return make("tr", { class: "band" }, make("th", { colspan: span, scope: "rowgroup" }, groupName(group)));
}

function groupName(group) {
  return group === WITHOUT_NUMBERS ? study.without : groups[group].name;
}

function line(place, visible) {
  const members = architectures.rows[place];
  const cells = visible.map((column) => (column.names ? nameCell(place) : cell(column, column.means, place)));
  return make("tr", { "data-architecture": place, ...(members.some(isSelected) ? { class: "selected" } : {}) }, ...cells);
}

function nameCell(place) {
  const members = architectures.rows[place];
  const open = view.open.has(nameAt(place));
  const label = `${plural(members.length, "run")} of ${nameAt(place)}`;
  return make(
    "th",
    { scope: "row" },
    make(
      "div",
      { class: "name" },
      make("button", { type: "button", class: "fold", "data-fold": place, "aria-expanded": open, "aria-label": label }, open ? "▾" : "▸"),
      make("button", { type: "button", "data-card": place, "aria-haspopup": "dialog" }, nameAt(place)),
      members.some(isSelected) ? " ★" : "",
    ),
  );
}

function runLines(place, visible) {
  return architectures.rows[place].map((row) => {
    const seed = texts[seedColumn.cells[row]];
    const button = make("button", { type: "button", "data-open": row, "aria-haspopup": "dialog" }, `seed ${seed}, run ${runIdOf(row)}`);
    const name = make("th", { scope: "row" }, button, isSelected(row) ? " ★" : "");
    const repeats = (column) => column.part === "spec"; // of the architecture's own line
    const cells = visible.map((column) => (column.names ? name : repeats(column) ? make("td", {}) : cell(column, column, row)));
    return make("tr", { class: isSelected(row) ? "run selected" : "run", "data-row": row }, ...cells);
  });
}

function cell(column, cells, place) {
  const small = cells.small ? texts[cells.small[place]] : "";
  return make("td", { class: kind(column) }, texts[cells.cells[place]], ...(small ? [" ", make("small", {}, small)] : []));
}

function counted(found, shown) {
  const inGroups = new Set(found.map((place) => architectures.group[place])).size;
  const members = found.reduce((sum, place) => sum + architectures.rows[place].length, 0);
  const of = view.group === EVERY ? `in ${plural(inGroups, "group")}, each sorted by itself` : "in this group";
  const part = shown.length < found.length ? `; the first ${shown.length.toLocaleString("en-US")} are shown` : "";
  return `${plural(found.length, "architecture")} with ${plural(members, "run")} ${of}${part}.`;
}
