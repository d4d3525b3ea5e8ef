// The page's data, and functions that make elements. Texts only become text nodes, so no name in the data can be markup.

const study = JSON.parse(document.getElementById("study-data").textContent);
const { texts, columns, rows, groups, runs, architectures } = study;
const FACETS = ["checkpoint", "objective", "status"];
const EVERY = -1;
const WITHOUT_NUMBERS = groups.length;
const naming = columns.find((column) => column.names);
const runColumn = columns.find((column) => column.heading === "run");
const seedColumn = columns.find((column) => column.heading === "seed");

const byId = (id) => document.getElementById(id);
const nameOf = (row) => texts[naming.cells[row]];
const nameAt = (place) => nameOf(architectures.rows[place][0]);
const runIdOf = (row) => texts[runColumn.cells[row]];
const isSelected = (row) => study.selected.includes(row);
const plural = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;

function make(tag, attributes, ...content) {
  return filled(document.createElement(tag), attributes, content);
}

function draw(tag, attributes, ...content) {
  return filled(document.createElementNS(byId("chart").namespaceURI, tag), attributes, content);
}

function filled(node, attributes, content) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...content);
  return node;
}

function option(value, label) {
  return make("option", { value }, label);
}

// of a column's cells, or of its means
function cellText(cells, place) {
  const small = cells.small ? texts[cells.small[place]] : "";
  return small ? `${texts[cells.cells[place]]} ${small}` : texts[cells.cells[place]];
}

function pairs(entries) {
  return make("dl", {}, ...entries.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
}
