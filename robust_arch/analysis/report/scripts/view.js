// Which rows are shown, and in what order. Rows of two groups are never ranked together: groups come one after another.

const PAGE = 100;
const collator = new Intl.Collator("en", { numeric: true });
const main = groups.findIndex((group) => group.main);
const view = {
  group: main >= 0 || !groups.length ? main : 0,
  words: [],
  checkpoint: "",
  objective: "",
  status: "",
  column: null,
  descending: false,
  limit: PAGE,
};

let chosenGroup = view.group; // by the reader; a filter that no row of it passes shows every group until it is removed

const haystack = rows.run.map((_, row) =>
  ["depths", "widths"]
    .map((heading) => columns.find((column) => column.heading === heading))
    .map((column) => texts[column.cells[row]])
    .concat(nameOf(row), runIdOf(row))
    .join(" ")
    .toLowerCase(),
);

function passes(row) {
  return (
    (view.group === EVERY || rows.group[row] === view.group) &&
    hasFacets(row) &&
    view.words.every((word) => haystack[row].includes(word))
  );
}

function hasFacets(row) {
  return FACETS.every((name) => view[name] === "" || texts[rows[name][row]] === view[name]);
}

function shownRows() {
  const found = rows.run.map((_, row) => row).filter(passes);
  const column = view.column === null ? null : columns[view.column];
  return found.sort(
    (one, other) =>
      rows.group[one] - rows.group[other] || (column ? compared(column, one, other) : 0) || one - other,
  );
}

function compared(column, one, other) {
  const sign = view.descending ? -1 : 1;
  if (!column.values) return sign * collator.compare(texts[column.cells[one]], texts[column.cells[other]]);
  const [left, right] = [column.values[one], column.values[other]];
  if (left === null || right === null) return (left === null) - (right === null); // missing values come last
  return sign * (left - right);
}
