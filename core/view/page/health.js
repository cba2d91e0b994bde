// Health: a picture a layer, a row a tensor, a column a recorded step. Colours are a row's change from its own middle:
// orange above, blue below, full at ten times; grey where there is no number.

const COUNTED = ["zeros", "nonfinite", "lost"], CELL = 10;
const SHOWN = [["rms", "rms"], ["largest", "largest magnitude"], ["ratio", "update : parameter"], ["zeros", "zeros"],
  ["nonfinite", "not finite"], ["lost", "lost in bf16"]];
const GLYPH_OF = { grows: "part", dies: "none", stops: "none", "not finite": "bad", "lost in bf16": "part" };
let data, now;

lens("health", {
  draw(root, given, page) {
    data = given;
    now = { statistic: page.get("statistic") || "rms", kind: page.get("kind") || "", row: Number(page.get("row") ?? data.rows.findIndex((row) => row.node === page.get("node"))) };
    now.course = el("div", {});
    append(root, [
      el("p", { class: "facts" }, `${number(data.recorded)} steps recorded, ${number(data.steps[0])} to ${number(data.steps.at(-1))}`,
        data.left_out.map((text) => el("span", { class: "dim" }, ` · ${text}`))),
      findings(), choices(), now.course, layers()]);
    if (data.rows[now.row]) drawCourse(now.row);
  },
});

function named(row) { return row.op ? `${row.node}.${row.tensor}` : row.tensor; }
function full(row) { return `${named(row)}, ${row.kind}`; }

// The numbers of a row over the steps; shares of its elements for counts.
function numbers(index, statistic) {
  const row = data.rows[index];
  if (!COUNTED.includes(statistic)) return data[statistic][index] || data.steps.map(() => null);
  const held = data[statistic][index];
  return data.steps.map((_, i) => (held ? held[i] / (row.size || 1) : 0));
}

// -1..1 for the colour: counts by their share, others by their distance in tens from the row's middle.
function tints(values, statistic) {
  if (COUNTED.includes(statistic)) return values.map((v) => (v ? Math.max(0.15, v) : 0));
  const logs = values.map((v) => (v ? Math.log10(Math.abs(v)) : null)), real = logs.filter((v) => v !== null).sort((a, b) => a - b);
  const middle = real[real.length >> 1];
  return logs.map((v, i) => (v === null ? (values[i] === 0 ? -1 : null) : Math.max(-1, Math.min(1, v - middle))));
}

function findings() {
  if (!data.findings.length) return card("What stands out", el("p", {}, badge("good", "nothing: no tensor grew tenfold, died, stopped, or was not finite")));
  return card("What stands out", scrolled("What stands out", "few",
    el("table", {}, el("tbody", {}, data.findings.map((one) => el("tr", {}, el("td", {}, badge(GLYPH_OF[one.state], one.state)),
      el("td", {}, el("button", { type: "button", on: { click: () => choose(one.row) } }, full(data.rows[one.row]))), el("td", {}, one.text)))))));
}

function choices() {
  const kinds = [...new Set(data.rows.map((row) => row.kind))];
  const group = (name, key, options) => el("div", { class: "row", role: "group", "aria-label": name }, options.map(([value, text]) =>
    choice(text, now[key] === value, { [key]: value })));
  const legend = COUNTED.includes(now.statistic) ? "A row is a tensor, a column a recorded step; the darker, the larger the share of elements."
    : "A row is a tensor, a column a recorded step. Orange is above the row's median, blue below; full colour is a factor of ten.";
  return card("", group("Statistic", "statistic", SHOWN), group("Kind", "kind", [["", "all"], ...kinds.map((kind) => [kind, kind])]), el("p", {}, legend));
}

function choose(index) {
  page.set({ row: index, node: null });
  drawCourse(index);
  now.course.scrollIntoView({ block: "nearest" });
}

function drawCourse(index) {
  now.row = index;
  const row = data.rows[index], shown = numbers(index, now.statistic), name = SHOWN.find(([key]) => key === now.statistic)[1];
  now.course.replaceChildren(el("div", {}, marks.lines({ title: `${full(row)}: ${name}${COUNTED.includes(now.statistic) ? " (share of elements)" : ""}`,
    x: data.steps, series: { [name]: shown }, x_name: "step" }),
    row.op ? jump("step", { node: row.node }, `${row.node} in Step`) : null));
}

function layers() {
  const groups = new Map();
  data.rows.forEach((row, i) => {
    const values = numbers(i, now.statistic);
    if (now.kind && row.kind !== now.kind) return;
    if (now.statistic === "ratio" && row.kind !== "update") return;
    groups.set(row.layer, [...(groups.get(row.layer) || []), { i, row, values }]);
  });
  const notable = new Set(data.findings.map((one) => data.rows[one.row].layer)), names = [...groups.keys()];
  const open = (name, at) => names.length <= 4 || at === 0 || at === names.length - 1 || (notable.size < 4 && notable.has(name));
  return names.map((name, at) => {
    const box = el("details", { class: "card", open: open(name, at) }, el("summary", {}, `${name}: ${groups.get(name).length} tensors`));
    const fill = () => { if (box.open && box.children.length === 1) box.append(picture(name, groups.get(name))); };
    box.addEventListener("toggle", fill);
    fill();
    return box;
  });
}

function picture(name, rows) {
  const out = el("output", { class: "read" }, "");
  const canvas = cells(rows.map((one) => tints(one.values, now.statistic)), CELL);
  const show = (i, j) => {
    const value = rows[i].values[j];
    out.textContent = `${full(rows[i].row)}, step ${number(data.steps[j])}: ${COUNTED.includes(now.statistic) ? `${number(100 * value)}% of its elements` : number(value)}`;
    page.say(out.textContent);
    now.pointed = rows[i].i;
  };
  const box = pointed(canvas, rows.length, data.steps.length, CELL, `${name}: tensors over steps`, show);
  box.addEventListener("click", () => { if (now.pointed !== undefined) choose(now.pointed); });
  box.addEventListener("keydown", (event) => { if (event.key === "Enter" && now.pointed !== undefined) choose(now.pointed); });
  return el("div", {}, el("div", { class: "beside" }, el("div", { class: "names", "aria-hidden": "true" }, rows.map((one) =>
    el("div", {}, `${named(one.row)} · ${one.row.kind}`))), box), out);
}
