// The dialog of a run: its recorded facts and its model card, of whose Markdown only the parts in use are parsed.

function openCard(chosen) {
  byId("card-runs").replaceChildren(...(chosen.length > 1 ? chosen.map((row) => chooser(row, chosen)) : []));
  showRun(chosen[0]);
  byId("card").showModal();
  byId("card").scrollTop = 0;
}

function chooser(row) {
  const label = `seed ${cellText(seedColumn, row)}, run ${runIdOf(row)}`;
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", () => showRun(row));
  return button;
}

function showRun(row) {
  const run = runs[rows.run[row]];
  byId("card-title").textContent = `${nameOf(row)}, run ${runIdOf(row)}`;
  const facts = run.facts || [];
  const entries = facts.filter((_, place) => place % 2 === 0).map((term, at) => [texts[term], texts[facts[2 * at + 1]]]);
  const command = run.command ? [make("pre", {}, make("code", {}, run.command))] : [];
  const lines = (run.card || []).map((place) => texts[place]).slice(1); // its first line is the dialog's title
  byId("card-body").replaceChildren(pairs(entries), ...command, ...markdown(lines));
}

function markdown(lines) {
  const blocks = [];
  for (const text of lines) {
    const [tag, content] = block(text);
    const last = blocks[blocks.length - 1];
    if (tag === null) blocks.push([null, []]);
    else if (last && last[0] === tag) last[1].push(content);
    else blocks.push([tag, [content]]);
  }
  return blocks.filter(([tag]) => tag !== null).map(([tag, contents]) => BLOCKS[tag](contents));
}

function block(text) {
  if (text.startsWith("## ")) return ["h3", text.slice(3)];
  if (text.startsWith("- ")) return ["ul", text.slice(2)];
  if (text.startsWith("|")) return ["table", text];
  return text.trim() ? ["p", text] : [null, ""];
}

const BLOCKS = {
  h3: (contents) => make("h3", {}, contents.join(" ")),
  p: (contents) => make("p", {}, ...inline(contents.join(" "))),
  ul: (contents) => make("ul", {}, ...contents.map((content) => make("li", {}, ...inline(content)))),
  table: cardTable,
};

function cardTable(lines) {
  const [head, rule, ...body] = lines.map((text) => text.replace(/^\||\|$/g, "").split("|").map((part) => part.trim()));
  const kinds = rule.map((dashes) => (dashes.endsWith(":") ? "number" : "message"));
  const cells = (tag) => (parts) => parts.map((part, place) => make(tag, { class: kinds[place] }, ...inline(part)));
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...cells("th")(head))),
    make("tbody", {}, ...body.map((parts) => make("tr", {}, ...cells("td")(parts)))),
  );
  return make("div", { class: "scroll" }, table);
}

function inline(text) {
  return text
    .split(/(\*\*[^*]+\*\*|`[^`]+`)/)
    .filter((part) => part)
    .map((part) => {
      if (part.startsWith("`") && part.length > 2) return make("code", {}, part.slice(1, -1));
      return part.startsWith("**") && part.length > 4 ? make("strong", {}, part.slice(2, -2)) : part;
    });
}
