// Which code ran, and how far it was checked: a row for each distinct work, its record beside it.

let shown = null;  // { data, rows, at, lines, side }

const wide = (n) => n.toLocaleString("en");
const kept = (data) => data.rows.filter((row) => !page.get("only") || row.state === page.get("only"));
const mark = (data, state) => data.states[state][0];

function filters(data) {
  const only = page.get("only");
  return el("div", { class: "row" }, Object.entries(data.states).filter(([, [, , n]]) => n).map(([state, [glyph, text, n]]) =>
    choice(`${glyph} ${n} ${text}`, only === state, { only: only === state ? null : state, at: null }, { class: `state ${state}` })));
}

function lineOf(data, row, index) {
  return el("tr", { class: index === shown.at ? "chosen" : null, on: { click: () => choose(index) } },
    el("td", { class: `glyph ${row.state}` }, el("span", { role: "img", "aria-label": data.states[row.state][1] }, mark(data, row.state))),
    el("th", { scope: "row" }, el("button", { type: "button", class: "link", on: { click(event) { event.stopPropagation(); choose(index); } } }, row.groups.join(", ")),
      row.nodes.length > 1 ? el("span", { class: "dim" }, ` × ${row.nodes.length}`) : null),
    el("td", {}, `${row.op}.${row.variant}`), el("td", {}, row.words));
}

// --- a record ------------------------------------------------------------------------------------------------------------

// From the smallest to the largest size that was checked, on a scale of powers of ten; a diamond is this run's size.
function range(row, dim) {
  const size = row.sizes[dim], [least, most] = row.record.covered[dim] || [null, null];
  const top = Math.log10(Math.max(10, size, most || 1) * 1.6), W = 190, at = (n) => 8 + (Math.log10(Math.max(1, n)) / top) * (W - 16);
  const from = at(least === null ? 1 : least), x = at(size);
  return svg("svg", { width: W, height: 18, "aria-hidden": "true" }, svg("line", { x1: 8, x2: W - 8, y1: 9, y2: 9, class: "axis" }),
    most === null ? null : svg("rect", { x: from, y: 4, width: Math.max(2, at(most) - from), height: 10, class: least === null ? "covered open" : "covered" }),
    svg("path", { d: `M${x} 1L${x + 6} 9L${x} 17L${x - 6} 9Z`, class: inside(row, dim) ? "here" : "here out" }));
}

function inside(row, dim) {
  const [least, most] = row.record.covered[dim] || [null, 0];
  return row.sizes[dim] <= most && (least === null || least <= row.sizes[dim]);
}

function sizes(row) {
  const line = (dim) => {
    const [least, most] = row.record.covered[dim] || [null, null];
    const said = most === null ? "not recorded" : `${least === null ? "up to" : `${wide(least)} to`} ${wide(most)}`;
    return el("tr", {}, el("th", { scope: "row" }, dim), el("td", { class: "n" }, wide(row.sizes[dim])), el("td", {}, said), el("td", {}, range(row, dim)),
      el("td", { class: inside(row, dim) ? "good" : "part" }, inside(row, dim) ? `${GLYPHS.good} covered` : `${GLYPHS.part} outside`));
  };
  return el("table", {}, el("thead", {}, el("tr", {}, ["dim", "this run", "checked", "from 1, by powers of ten", "state"].map((text, i) => el("th", { scope: "col", class: i === 1 ? "n" : null }, text)))),
    el("tbody", {}, Object.keys(row.sizes).map(line)));
}

function checks(data, record) {
  return scrolled("Sub-checks", "checks", el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "sub-check"), el("th", { scope: "col", class: "n" }, "worst error"), el("th", { scope: "col" }, "what it holds"))),
    el("tbody", {}, Object.entries(record.checks).map(([name, worst]) => el("tr", {}, el("th", { scope: "row" }, name),
      el("td", { class: "n" }, worst ? worst.toExponential(1) : "0"), el("td", { class: "dim" }, data.meanings[name] || ""))))));
}

function sideOf(data) {
  const row = shown.rows[shown.at];
  if (!row) return [el("p", { class: "dim" }, "No row is in this state.")];
  const record = row.record, node = row.nodes[0];
  const about = [["nodes", row.nodes.length > 6 ? `${row.nodes.slice(0, 5).join(", ")} and ${row.nodes.length - 5} more` : row.nodes.join(", ")],
    row.parts.length ? ["stands for", row.parts.join(" + ")] : null, ["choice", row.why], ["runs in", row.dtype],
    record ? ["checked", `${record.there}, in ${record.dtype}`] : null, record ? ["on", `${record.date}, corelm ${record.version}`] : null,
    record ? ["worst error", `${record.worst.toExponential(1)} in ${Object.keys(record.checks).length} sub-checks`] : null].filter(Boolean);
  return [el("h2", {}, `${row.op}.${row.variant}`), el("p", {}, badge(row.state, row.words)),
    row.groups[0] === `${row.op} (nested)` ? null : jump("step", { node }, `${node} in Step`),
    el("table", {}, el("tbody", {}, about.map(([name, text]) => el("tr", {}, el("th", { scope: "row", class: "dim" }, name), el("td", {}, text))))),
    record && record.finding ? el("p", { class: "finding" }, `${GLYPHS.bad} ${record.finding}`) : null,
    el("h3", {}, "Sizes of this run, and those that the check covered"),
    record ? (Object.keys(row.sizes).length ? sizes(row) : el("p", { class: "dim" }, "This op has no sizes.")) : el("p", {}, Object.entries(row.sizes).map(([dim, n]) => `${dim} = ${wide(n)}`).join(", "), el("br", {}), "No check recorded this variant."),
    record && Object.values(record.covered).some(([least]) => least === null) ? el("p", { class: "dim" }, "The record is an older one: it has the largest sizes alone.") : null,
    record ? [el("h3", {}, "Sub-checks"), checks(data, record)] : null,
    row.state === "good" ? null : el("p", {}, "Check at this run's sizes: ", el("code", {}, data.check))].flat().filter(Boolean);
}

function choose(index) {
  const { data, rows, lines, side } = shown;
  shown.at = chooseRow(lines, index);
  side.replaceChildren(...sideOf(data));
  const row = rows[shown.at];
  if (row) page.say(`${row.groups.join(", ")}: ${row.op}.${row.variant}, ${row.words}`);
}

lens("trust", {
  draw(root, data, page) {
    const rows = kept(data), own = rows.findIndex((row) => row.nodes.includes(page.get("node")));
    shown = { data, rows, at: Number(page.get("at") ?? Math.max(0, own)), lines: [], side: el("div", { class: "card side" }) };
    shown.lines = rows.map((row, index) => lineOf(data, row, index));
    append(root, [el("div", { class: "row top" }, filters(data), el("span", { class: "dim" }, `on ${data.place}, in ${data.precision}`),
      data.own_device ? null : badge("part", "not the device of the run: these are the variants of this one")),
    el("div", { class: "panes" }, el("div", { class: "card" }, el("table", {}, el("thead", {}, el("tr", {},
      ["", "nodes", "variant", "state"].map((text) => el("th", { scope: "col" }, text || el("span", { class: "unseen" }, "mark"))))), el("tbody", {}, shown.lines))), shown.side)]);
    choose(shown.at);
  },
  shown() { shown.lines[shown.at]?.scrollIntoView({ block: "nearest" }); },
  key(event) {
    const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (way) choose(shown.at + way);
    return Boolean(way);
  },
});
