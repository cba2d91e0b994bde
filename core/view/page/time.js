// Each node against its floor: a bar is the time that it took, a mark in it the time that it takes at least.

const ORDERS = { longest: "longest first", floor: "furthest over its floor", graph: "in the order of the step" };
let shown = null;  // { data, groups, at, lines }

const milliseconds = (seconds) => (seconds === null ? "–" : `${number(1e3 * seconds)} ms`);
const megabytes = (n) => (n >= 1e9 ? `${number(n / 1e9)} GB` : `${number(n / 1e6)} MB`);
const timed = (data) => !data.why_not_timed;
const times = (one) => (one.seconds === null || !one.floor ? null : one.seconds / one.floor);
const same = (one, row) => ["group", "op", "variant", "kind"].every((name) => one[name] === row[name]);

function ordered(data) {
  const order = page.get("order") || "longest", groups = [...data.groups];
  if (order === "floor") groups.sort((a, b) => (times(b) || 0) - (times(a) || 0));
  if (order === "graph") groups.sort((a, b) => data.rows.findIndex((row) => same(a, row)) - data.rows.findIndex((row) => same(b, row)));
  return groups;
}

function facts(data) {
  const took = data.rows.reduce((sum, row) => sum + (row.seconds || 0), 0);
  const rows = [["device", `${data.device}, in ${data.precision}`],
    ["rates", data.known ? `${number(data.peak / 1e12)} TFLOP/s and ${number(data.memory_rate / 1e9)} GB/s` : "unknown: no floor can be said of this device"]];
  if (data.recorded !== null) rows.push(["a step of the run", `${milliseconds(data.recorded)}, the median, in ${data.micro_steps} micro-step${data.micro_steps > 1 ? "s" : ""}`]);
  if (timed(data)) rows.push(["launch by launch", `${milliseconds(took)} a micro-step, and ${milliseconds(data.update)} the update`]);
  return card("", el("table", {}, el("tbody", {}, rows.map(([name, text]) => el("tr", {}, el("th", { scope: "row", class: "dim" }, name), el("td", {}, text))))),
    timed(data) ? null : el("p", {}, badge("none", "not timed"), ` ${data.why_not_timed}. `, data.measure && ["This command times it: ", el("code", {}, data.measure)]));
}

function bar(data, one) {
  const by = timed(data) ? "seconds" : "bytes", most = Math.max(1e-30, ...data.groups.map((row) => Math.max(row[by], timed(data) ? row.floor || 0 : 0)));
  const share = (value) => `${(100 * value) / most}%`;
  return el("td", { class: "bar" }, el("div", { class: "track", "aria-hidden": "true" }, el("i", { class: one.kind.includes("backward") ? "back" : "fore", style: { width: share(one[by]) } }),
    timed(data) && one.floor ? el("b", { style: { left: share(one.floor) } }) : null));
}

function over(data, one) {
  if (one.floor === null) return el("td", {}, badge("none", "unknown"));
  if (times(one) === null) return el("td", {}, milliseconds(one.floor));
  const ratio = times(one);
  return el("td", {}, badge(ratio < 2 ? "good" : ratio < 5 ? "part" : "bad", `${ratio.toFixed(1)} x its floor`));
}

function rowOf(data, one, index) {
  const open = one.count > 1 && page.get("open") === String(index), members = data.rows.filter((row) => same(one, row));
  const toggle = one.count > 1 && el("button", { type: "button", class: "fold", "aria-expanded": open, "aria-label": `the ${one.count} nodes of ${one.group}, ${one.kind}`, on: {
    click(event) { event.stopPropagation(); page.set({ open: open ? null : index }); page.redraw(); } } }, open ? "▾" : "▸");
  const line = el("tr", { class: index === shown.at ? "chosen" : null, on: { click: () => choose(index) } }, el("th", { scope: "row" }, toggle || el("span", { class: "fold" }), one.group),
    el("td", { class: "dim" }, one.variant ? `${one.op}.${one.variant}` : one.op), el("td", {}, one.kind.replace("_", " + ")), el("td", { class: "n" }, number(one.count)),
    el("td", { class: "n" }, timed(data) ? milliseconds(one.seconds) : "–"), el("td", { class: "n" }, `${(100 * one.share).toFixed(1)}%`), bar(data, one), over(data, one),
    el("td", { class: "n" }, megabytes(one.bytes)), el("td", { class: "n" }, one.flops ? `${number(one.flops / 1e9)} GFLOP` : ""));
  const inner = open ? members.map((row) => el("tr", { class: "member" }, el("td", {}, (row.node && jump("step", { node: row.node }, row.node, { class: "link" })) || row.node),
    el("td", { colspan: 3 }), el("td", { class: "n" }, timed(data) ? milliseconds(row.seconds) : "–"), el("td", { colspan: 5 }))) : [];
  return { line, rows: [line, ...inner] };
}

function choose(index) {
  const { data, groups, lines } = shown;
  shown.at = chooseRow(lines, index);
  const one = groups[shown.at], ratio = times(one);
  page.say(`${one.group} ${one.kind}, ${one.op}: ${timed(data) ? milliseconds(one.seconds) : megabytes(one.bytes)}, floor ${ratio === null ? "unknown" : `${ratio.toFixed(1)} times over`}`);
}

lens("time", {
  keys: [["f", "fold or unfold"]],
  draw(root, data, page) {
    const own = data.rows.find((row) => row.node === page.get("node")), groups = ordered(data);
    shown = { data, groups, at: Number(page.get("at") ?? (own ? groups.findIndex((one) => same(one, own)) : 0)), lines: [] };
    const rows = shown.groups.map((one, index) => rowOf(data, one, index));
    shown.lines = rows.map((row) => row.line);
    const order = page.get("order") || "longest", share = timed(data) ? "time" : "bytes";
    const header = [["nodes"], ["variant"], ["direction"], ["times", "n"], ["time", "n"], [`of ${share}`, "n"], [share], [timed(data) ? "over its floor" : "floor"], ["moves", "n"], ["computes", "n"]];
    const buttons = Object.entries(ORDERS).filter(([key]) => key !== "floor" || (data.known && timed(data))).map(([key, text]) =>
      choice(timed(data) || key !== "longest" ? text : "most bytes first", key === order, { order: key === "longest" ? null : key, open: null, at: null }));
    append(root, [facts(data), card("", el("div", { class: "row" }, buttons, el("span", { class: "legend" }, el("i", { class: "swatch fore" }), "forward"),
      el("span", { class: "legend" }, el("i", { class: "swatch back" }), "backward"), data.known && timed(data) ? [el("span", { class: "legend" }, el("i", { class: "swatch mark" }), "floor"), el("span", { class: "dim" }, `${GLYPHS.good} below 2 times the floor, ${GLYPHS.part} below 5, ${GLYPHS.bad} more`)] : null),
      scrolled("Nodes", "", el("table", { class: "nodes" },
        el("thead", {}, el("tr", {}, header.map(([text, kind]) => el("th", { scope: "col", class: kind || null }, text)))), el("tbody", {}, rows.map((row) => row.rows)))))]);
  },
  shown() { shown.lines[shown.at]?.scrollIntoView({ block: "nearest" }); },
  key(event, page) {
    const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (way) choose(shown.at + way);
    else if (event.key === "f") { page.set({ open: page.get("open") === String(shown.at) ? null : shown.at }); page.redraw(); }
    return Boolean(way || event.key === "f");
  },
});
