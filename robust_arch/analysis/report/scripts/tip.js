// The tooltip of a point under the pointer or in focus, and keyboard navigation between points.

function tell(node) {
  const mark = marks[node.dataset.mark];
  const tip = byId("tip");
  tip.replaceChildren(make("strong", {}, nameOf(mark.rows[0])), pairs(told(mark)), ...commandOf(mark));
  tip.hidden = false;
  placeTip(tip, node.querySelector(".shape").getBoundingClientRect());
  node.setAttribute("aria-describedby", "tip");
}

function told(mark) {
  const [first] = mark.rows;
  const several = mark.rows.length > 1;
  const entries = (part) =>
    columns
      .filter((column) => column.part === part && texts[column.cells[first]] !== "-")
      .map((column) => [column.heading, cellText(column, first)]);
  const spec = entries("spec").filter(([name]) => !several || name !== "seed");
  if (!several) return [...spec, ...entries("score")];
  const seeds = mark.rows.map((row) => cellText(seedColumn, row)).join(", ");
  return [...spec, ["seeds", seeds], ["worst case (%)", meanText(mark)]];
}

function commandOf(mark) {
  const command = runs[rows.run[mark.rows[0]]].command;
  return command ? [make("code", {}, command)] : [];
}

function placeTip(tip, box) {
  const plot = byId("plot").getBoundingClientRect();
  const left = Math.min(box.right - plot.left + 10, plot.width - tip.offsetWidth);
  const above = box.top - plot.top - tip.offsetHeight - 10;
  const covers = box.right - plot.left + 10 > left; // moved left over the point: then it goes below, or above
  const below = box.bottom - plot.top + 10;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${covers ? (box.top > tip.offsetHeight + 20 ? above : below) : Math.max(0, box.top - plot.top - 20)}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

function step(node, key) {
  const places = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
  if (!(key in places)) return false;
  const wanted = Math.min(marks.length - 1, Math.max(0, Number(node.dataset.mark) + places[key]));
  const next = byId("chart").querySelector(`[data-mark="${wanted}"]`);
  node.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
  return true;
}
