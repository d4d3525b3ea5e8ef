// Which rows are shown, and in what order. Rows of two groups are never ranked together: groups come one after another.

const PAGE = 100;
const collator = new Intl.Collator("en", { numeric: true });
const main = groups.findIndex((group) => group.main);
const best = columns.findIndex((column) => column.heading === "worst case (%)");
const view = startingView();

let chosenGroup = view.group; // by the reader; a filter that no row of it passes shows every group until it is removed

function startingView() {
  const group = main >= 0 || !groups.length ? main : 0;
  const facets = { study: "", checkpoint: "", objective: "", status: "" };
  return { group, words: [], ...facets, column: best < 0 ? null : best, descending: true, limit: PAGE, open: new Set() };
}

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
  const inStudy = view.study === "" || study.studies.some((each) => each.name === view.study && each.runs.includes(rows.run[row]));
  return inStudy && FACETS.every((name) => view[name] === "" || texts[rows[name][row]] === view[name]);
}

// an architecture is shown if one of its runs passes
function shownArchitectures() {
  const found = architectures.rows.map((_, place) => place).filter((place) => architectures.rows[place].some(passes));
  const column = view.column === null ? null : columns[view.column];
  return found.sort(
    (one, other) =>
      architectures.group[one] - architectures.group[other] || (column ? compared(column.means, one, other) : 0) || one - other,
  );
}

function compared(means, one, other) {
  const sign = view.descending ? -1 : 1;
  if (!means.values) return sign * collator.compare(texts[means.cells[one]], texts[means.cells[other]]);
  const [left, right] = [means.values[one], means.values[other]];
  if (left === null || right === null) return (left === null) - (right === null); // missing values come last
  return sign * (left - right);
}
