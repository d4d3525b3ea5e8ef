// The table: one page of rows at a time, with headings that sort.

function renderTable(found) {
  byId("rows").tHead.replaceChildren(make("tr", {}, ...columnsOf(found).map(heading)));
  byId("rows").tBodies[0].replaceChildren();
  extendTable(found);
}

// adds the rows within the limit that are not in the table yet
function extendTable(found) {
  const written = byId("rows").tBodies[0].querySelectorAll("[data-row]").length;
  const shown = found.slice(0, view.limit);
  byId("rows").tBodies[0].append(...lines(shown, written, columnsOf(found)));
  byId("more").hidden = shown.length === found.length;
  byId("more").textContent = `Show more rows (${(found.length - shown.length).toLocaleString("en-US")} left)`;
  byId("count").textContent = counted(found, shown);
}

function columnsOf(found) {
  return columns.filter((column) => column.names || found.some((row) => texts[column.cells[row]] !== "-"));
}

function heading(column) {
  const place = columns.indexOf(column);
  const order = view.column !== place ? "none" : view.descending ? "descending" : "ascending";
  const button = make("button", { type: "button", "data-column": place }, column.heading);
  return make("th", { scope: "col", class: `sortable ${kind(column)}`, "aria-sort": order }, button);
}

function kind(column) {
  return column.values ? "number" : "text";
}

function lines(shown, from, visible) {
  const added = [];
  for (let place = from; place < shown.length; place += 1) {
    const begins = place === 0 || rows.group[shown[place]] !== rows.group[shown[place - 1]];
    if (view.group === EVERY && begins) added.push(band(rows.group[shown[place]], visible.length));
    added.push(line(shown[place], visible));
  }
  return added;
}

function band(group, span) {
  return make("tr", { class: "band" }, make("th", { colspan: span, scope: "rowgroup" }, groupName(group)));
}

function groupName(group) {
  return group === WITHOUT_NUMBERS ? study.without : groups[group].name;
}

function line(row, visible) {
  const cells = visible.map((column) => (column.names ? nameCell(row) : cell(column, row)));
  return make("tr", { "data-row": row, ...(isSelected(row) ? { class: "selected" } : {}) }, ...cells);
}

function nameCell(row) {
  const button = make("button", { type: "button", "data-open": row, "aria-haspopup": "dialog" }, nameOf(row));
  return make("th", { scope: "row" }, button, isSelected(row) ? " ★" : "");
}

function cell(column, row) {
  const small = column.small ? texts[column.small[row]] : "";
  const text = texts[column.cells[row]];
  return make("td", { class: kind(column) }, text, ...(small ? [" ", make("small", {}, small)] : []));
}

function counted(found, shown) {
  const inGroups = new Set(found.map((row) => rows.group[row])).size;
  const of = view.group === EVERY ? `in ${plural(inGroups, "group")}, each sorted by itself` : "in this group";
  const part = shown.length < found.length ? `; the first ${shown.length.toLocaleString("en-US")} are shown, results.csv has all of them` : "";
  return `${plural(found.length, "row")} ${of}${part}.`;
}
