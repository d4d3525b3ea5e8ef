// The view as the page's fragment, like #sort=params&open=wrn_16_half: a link to it restores the view.
// A fragment without "=" is the anchor of a section. Groups and columns are named by their text, as positions change.

const CHOICES = ["cost", "unit"]; // of the plot

function fragment() {
  const state = new URLSearchParams();
  const start = startingView();
  if (view.group !== start.group) state.set("group", view.group === EVERY ? "every" : groupLabel(view.group));
  if (view.words.length) state.set("filter", view.words.join(" "));
  for (const name of ["study", ...FACETS]) if (view[name]) state.set(name, view[name]);
  if (view.column !== start.column || view.descending !== start.descending) {
    state.set("sort", columns[view.column].heading);
    state.set("order", view.descending ? "descending" : "ascending");
  }
  for (const name of CHOICES) if (byId(name).value !== firstChoice[name]) state.set(name, byId(name).value);
  for (const name of view.open) state.append("open", name);
  return `${state}`;
}

function restore() {
  const state = location.hash.includes("=") ? new URLSearchParams(location.hash.slice(1)) : null;
  if (state === null) return false;
  Object.assign(view, startingView());
  const group = [EVERY, ...Array(groups.length + 1).keys()].find((each) => groupLabel(each) === state.get("group"));
  if (group !== undefined) view.group = group;
  view.words = wordsOf(state.get("filter") || "");
  for (const name of ["study", ...FACETS]) view[name] = known(byId(name), state.get(name)) || "";
  const column = columns.findIndex((each) => each.heading === state.get("sort"));
  if (column >= 0) Object.assign(view, { column, descending: state.get("order") === "descending" });
  for (const name of CHOICES) byId(name).value = known(byId(name), state.get(name)) || firstChoice[name];
  const names = new Set(architectures.rows.map((_, place) => nameAt(place)));
  view.open = new Set(state.getAll("open").filter((name) => names.has(name)));
  chosenGroup = view.group;
  return true;
}

// only what the control offers: a fragment may come from anywhere
function known(control, value) {
  return [...control.options].some((each) => each.value === value) ? value : null;
}

function groupLabel(group) {
  if (group === EVERY) return "every";
  return group === WITHOUT_NUMBERS ? study.without : groups[group].short;
}

function wordsOf(text) {
  return text.toLowerCase().split(/\s+/).filter((word) => word);
}

function showLink() {
  const state = fragment();
  byId("link").href = `#${state || "results"}`;
  const there = location.hash.includes("=");
  if (state ? location.hash !== `#${state}` : there) history.replaceState(null, "", state ? `#${state}` : "#results");
}
