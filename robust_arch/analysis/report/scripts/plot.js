// The plot: robust accuracy with its interval against a cost, and the group's Pareto front from the data.

const TITLES = {
  params: "Trainable parameters",
  macs: "Multiply-accumulates for one image",
  share: "Last stage's share of the stages' parameters (%)",
};
const MARGIN = { left: 52, right: 26, top: 12, bottom: 46 };
let marks = [];

function renderPlot(found) {
  const group = view.group === EVERY ? main : view.group;
  const cost = byId("cost").value;
  const known = plotted(found, group).filter((mark) => mark.cost !== null && mark.robust !== null);
  marks = known.sort((one, other) => one.cost - other.cost || one.robust - other.robust);
  const front = new Set(marks.filter((mark) => mark.front));
  hideTip();
  byId("chart").replaceChildren();
  byId("legend").textContent = explained(group, cost, front);
  byId("plot").hidden = !marks.length;
  if (marks.length) drawMarks(front, cost);
}

function plotted(found, group) {
  if (!groups[group]) return [];
  const cost = byId("cost").value;
  const inside = found.filter((place) => architectures.group[place] === group);
  if (byId("unit").value === "run") {
    const front = new Set(study.front[cost]);
    const members = inside.flatMap((place) => architectures.rows[place]).filter(passes);
    return members.map((row) => pointOf([row], rows, row, front.has(row)));
  }
  const front = new Set(groups[group].front[cost]);
  return inside.map((place) => ({ ...pointOf(architectures.rows[place], architectures, place, front.has(place)), place }));
}

function pointOf(members, { robust, low, high }, at, front) {
  const cost = rows[byId("cost").value][members[0]];
  return { rows: members, robust: robust[at], low: low[at], high: high[at], cost, front, selected: members.some(isSelected) };
}

function explained(group, cost, front) {
  if (!marks.length) return "Nothing to draw: no row shown has a worst-case accuracy and this cost.";
  const what = byId("unit").value === "run" ? "run" : "architecture";
  const bars = marks.some((mark) => mark.rows.length > 1)
    ? "circles: one run, Wilson 95% interval; squares: mean of several runs, with its 95% interval"
    : "bars: Wilson 95% intervals";
  const line =
    cost === "share"
      ? "A share is no cost, so no front is drawn."
      : groups[group].front[cost] === null
        ? "These costs are equal within the tolerance of a budget, so no front is drawn."
        : `Filled, on the dashed line: the ${plural(front.size, "point")} shown that no other point of the group beats in cost and ` +
          "accuracy (Pareto front; other seeds may move it).";
  const star = marks.some((mark) => mark.selected)
    ? ` ★: ${what === "run" ? "the run" : "the architecture of the run"} with the highest held-out robust accuracy.`
    : "";
  return `${plural(marks.length, what)} of ${view.group === EVERY ? "the main group" : "this group"}; robust accuracy in the worst case; ${bars}. ${line}${star}`;
}

function drawMarks(front, cost) {
  const width = Math.max(280, byId("plot").clientWidth);
  const height = Math.round(Math.min(460, Math.max(300, 0.55 * width)));
  const costs = marks.map((mark) => mark.cost);
  const logarithmic = cost !== "share" && Math.max(...costs) > LOGARITHMIC_FROM * Math.min(...costs);
  const x = axis(...spread(costs, logarithmic), MARGIN.left, width - MARGIN.right, logarithmic);
  const [low, high] = spread(marks.flatMap((mark) => [mark.low, mark.high]), false);
  const y = axis(Math.max(0, low), Math.min(100, high), height - MARGIN.bottom, MARGIN.top, false);
  const chart = byId("chart");
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.style.setProperty("--whisker", Math.min(0.8, Math.max(0.12, 30 / marks.length)));
  chart.append(...frame(x, y, width, height, cost), ...frontLine(front, x, y));
  chart.append(...marks.map((mark, place) => drawn(mark, place, x, y, front.has(mark))));
}

function frame(x, y, width, height, cost) {
  const bottom = height - MARGIN.bottom;
  const across = y.ticks.flatMap((tick) => [
    draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y.at(tick), y2: y.at(tick) }),
    draw("text", { x: MARGIN.left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, short(tick)),
  ]);
  const up = x.ticks.flatMap((tick) => [
    draw("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: MARGIN.top, y2: bottom }),
    draw("text", { x: x.at(tick), y: bottom + 17, "text-anchor": "middle" }, short(tick)),
  ]);
  const middle = (MARGIN.top + bottom) / 2;
  return [
    ...across,
    ...up,
    draw("text", { class: "title", x: (MARGIN.left + width) / 2, y: height - 6, "text-anchor": "middle" }, TITLES[cost]),
    draw(
      "text",
      { class: "title", transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" },
      "Robust accuracy (%)",
    ),
  ];
}

function frontLine(front, x, y) {
  const corners = [...front].map((mark, place) => {
    const [across, up] = [x.at(mark.cost), y.at(mark.robust)];
    return place === 0 ? `M${across} ${up}` : `H${across} V${up}`;
  });
  return front.size > 1 ? [draw("path", { class: "front-line", d: corners.join(" ") })] : [];
}

function drawn(mark, place, x, y, onFront) {
  const [across, up] = [x.at(mark.cost), y.at(mark.robust)];
  const shape =
    mark.rows.length > 1
      ? draw("rect", { class: "shape", x: across - 4, y: up - 4, width: 8, height: 8 })
      : draw("circle", { class: "shape", cx: across, cy: up, r: 4.5 });
  const star = draw("text", { class: "star", x: across + 6, y: up - 6 }, "★");
  const name = { class: onFront ? "mark front" : "mark", "data-mark": place, tabindex: place === 0 ? 0 : -1 };
  return draw(
    "g",
    { ...name, role: "button", "aria-haspopup": "dialog", "aria-label": `${nameOf(mark.rows[0])}, ${robustText(mark)}` },
    draw("line", { class: "whisker", x1: across, x2: across, y1: y.at(mark.low), y2: y.at(mark.high) }),
    draw("circle", { class: "reach", cx: across, cy: up, r: 10 }),
    shape,
    ...(mark.selected ? [star] : []),
  );
}

function robustText(mark) {
  return mark.rows.length > 1 ? meanText(mark) : `robust ${cellText(columns[best], mark.rows[0])}%`;
}

function meanText(mark) {
  return `mean of ${mark.rows.length} runs ${cellText(columns[best].means, mark.place)}`;
}
