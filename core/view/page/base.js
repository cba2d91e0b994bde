// The parts of every view: elements, colours, the page's state in its address, keys, and the generic marks.
//
// A view's file calls `lens("memory", { draw(root, data, page) {...}, key(event, page) {...} })` once. `draw` fills an
// empty element; `key` says by true that it took a key that the page itself does not use; `keys`, rows of [key, text],
// lists them. Text becomes text nodes only.
//   el("div", { class: "card", on: { click } }, "text", child)     an element; svg(...) likewise
//   page.get("node"), page.set({ node: "h.2.fc" })                 the state that is in the address; set redraws nothing
//   page.go("step", { node: "h.2.fc" })                            another view, with a state
//   page.redraw(), page.say("row 3")                               draw this view again; speak to a screen reader
//   choice(text, on, { key: value }), jump("step", state, text)    buttons: a state of this view; another view
//   scrolled(name, kind, ...children), chooseRow(lines, at)        a box with its own scroll bar; a row of a table
//   colour(x), shade(x)                                            blue to orange for -1..1; 0..1
//   marks.table({ title, header, rows }) .matrix .lines .bars .text .colours     drawings; what Python's LensMark makes
//   chart({ title, curves, x_name })                               curves with places of their own
//   number(x), clamp(x, most)                                      a number in few characters; one from 0 to `most`

const VIEWS = {};
function lens(name, view) { VIEWS[name] = view; }

// --- elements --------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function el(tag, props, ...children) { return filled(document.createElement(tag), props, children); }
function svg(tag, props, ...children) { return filled(document.createElementNS(SVG, tag), props, children); }

function filled(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || (value === false && !name.startsWith("aria-"))) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// A button that is down where `on`: it gives the address this state, and the view is drawn again.
function choice(text, on, state, props) {
  return el("button", { type: "button", "aria-pressed": Boolean(on), on: { click() { page.set(state); page.redraw(); } }, ...props }, text);
}

// A button to another view with this state; null where the page has no such view.
function jump(name, state, text, props) {
  return page.has(name) ? el("button", { type: "button", on: { click: () => page.go(name, state) }, ...props }, text) : null;
}

function scrolled(name, kind, ...children) {
  return el("div", { class: `scroll ${kind}`, tabindex: 0, role: "group", "aria-label": name }, children);
}

// Mark a row of a table, bring it into sight and into the address as `at`. Its number: `index`, or the nearest there is.
function chooseRow(lines, index) {
  const at = clamp(index, lines.length - 1);
  page.set({ at: at || null, node: null });
  lines.forEach((line, i) => line.classList.toggle("chosen", i === at));
  if (lines[at]) lines[at].scrollIntoView({ block: "nearest" });
  return at;
}

function clamp(x, most) { return Math.max(0, Math.min(most, x)); }

function number(x) {
  if (x === null || x === undefined) return "–";
  if (typeof x !== "number") return String(x);
  if (Number.isInteger(x) && Math.abs(x) < 1e9) return x.toLocaleString("en");
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(2) : Number(x.toPrecision(4)).toString();
}

// --- colours ---------------------------------------------------------------------------------------------------------

const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 2"];
const GLYPHS = { good: "●", part: "◐", none: "○", bad: "✕" };
let ink = {};

function variable(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function readTheme() {
  const rgb = (name) => { const n = parseInt(variable(name).slice(1), 16); return [n >> 16, (n >> 8) & 255, n & 255]; };
  ink = { hot: rgb("--hot"), cold: rgb("--cold"), mid: rgb("--mid") };
}

function between(from, to, share) { return from.map((v, i) => Math.round(v + (to[i] - v) * share)); }
function channels(x) {  // -1..1 -> [r, g, b]
  const size = Math.min(1, Math.abs(x));
  return between(ink.mid, x < 0 ? ink.cold : ink.hot, Math.sqrt(size));
}
function colour(x) { return `rgb(${channels(x).join()})`; }
function shade(x) { return `rgb(${between(ink.mid, ink.cold, clamp(x, 1)).join()})`; }
function role(index) { return `var(--role${index % 5})`; }
function badge(state, text) { return el("span", { class: `badge ${state}` }, `${GLYPHS[state]} ${text}`); }

// --- data ------------------------------------------------------------------------------------------------------------

const read = new Map();
async function block(id) {
  if (!read.has(id)) read.set(id, decoded(document.getElementById(id)));
  return read.get(id);
}

function bytesOf(base64) { return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)); }

async function decoded(node) {
  if (node.type === "application/json") return JSON.parse(node.textContent);
  if (typeof DecompressionStream === "undefined")
    throw new Error("This browser cannot decompress the data: make the page with --plain.");
  const stream = new Blob([bytesOf(node.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// --- the page and its state --------------------------------------------------------------------------------------------

const page = {
  about: null, name: "", state: {}, problems: [], current: null,
  get(key) { return this.state[key]; },
  set(values) {
    for (const [key, value] of Object.entries(values))
      if (value === null || value === undefined || value === "") delete this.state[key];
      else this.state[key] = String(value);
    const parts = Object.entries(this.state).map(([k, v]) => `&${encodeURIComponent(k)}=${encodeURIComponent(v)}`);
    history.replaceState(null, "", `#${this.name}${parts.join("")}`);
  },
  go(name, values) { this.state = {}; return show(name, values || {}); },
  redraw() { return show(this.name, {}); },
  say(text) { document.getElementById("say").textContent = text; },
  has(name) { return this.about.views.some((view) => view.name === name && !view.absent && !view.problem); },
};

function fromAddress() {
  const [name, ...rest] = location.hash.slice(1).split("&");
  const known = page.about.views.some((view) => view.name === name);
  page.state = Object.fromEntries(rest.map((part) => part.split("=").map(decodeURIComponent)).filter((p) => p.length === 2));
  const first = page.about.views.find((view) => !view.absent && !view.problem) || page.about.views[0];
  return known ? name : first.name;
}

// The function that draws a view with data; none for a view without data, with a problem, or drawn by marks.
function script(view) { return view.drawn && !view.absent && !view.problem ? VIEWS[view.name] : undefined; }

async function show(name, values) {
  const view = page.about.views.find((one) => one.name === name);
  const panel = document.getElementById("panel"), changed = page.name !== name;
  page.name = name;
  page.set(values);
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const on = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
  }
  panel.setAttribute("aria-labelledby", `tab-${name}`);
  document.getElementById("question").textContent = view.question;
  document.getElementById("command").textContent = view.command;
  const root = el("div", { class: `view view-${name}` });
  try {
    if (view.problem) append(root, [el("p", { class: "card" }, `${GLYPHS.bad} ${view.problem}`)]);
    else if (view.absent) append(root, [absent(view)]);
    else {
      const held = await block(`data-${name}`);
      if (page.name !== name) return;
      page.current = held.data;
      if (script(view)) script(view).draw(root, held.data, page);
      else append(root, held.marks.map((mark) => marks[mark.kind](mark)));
    }
  } catch (error) {
    page.problems.push(`${name}: ${error.stack || error}`);
    append(root, [el("p", { class: "card" }, `${GLYPHS.bad} This view cannot be drawn: ${error.message}`)]);
  }
  const top = changed ? 0 : panel.scrollTop;
  panel.replaceChildren(root);
  panel.scrollTop = top;
  if (script(view) && script(view).shown) script(view).shown(root, page);
}

function absent(view) {
  return el("div", { class: "card" }, el("p", {}, "There are no data for this view yet. This command makes them:"),
    el("pre", {}, view.command));
}

// --- keys --------------------------------------------------------------------------------------------------------------

const KEYS = [["1 to 9, 0", "views"], ["← → ↑ ↓", "one cell, node, token or step on"], ["j", "the data of this view as JSON"],
  ["t", "dark or light"], ["Escape", "leaves the tour"], ["?", "these keys"]];

// The keys of the page and those that the views' `keys` list.
function allKeys() {
  return [...KEYS, ...page.about.views.flatMap((view) => (script(view)?.keys || []).map(([key, text]) => [key, `in ${view.title}: ${text}`]))];
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) return;
  const views = page.about.views;
  const digit = "1234567890".indexOf(event.key);
  if (event.target.closest("[role=tab]") && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const at = views.findIndex((view) => view.name === page.name);
    const next = views[(at + (event.key === "ArrowRight" ? 1 : views.length - 1)) % views.length];
    page.go(next.name);
    document.getElementById(`tab-${next.name}`).focus();
  } else if (digit >= 0 && digit < views.length) page.go(views[digit].name);
  else if (event.key === "j") twin();
  else if (event.key === "t") theme();
  else if (event.key === "Escape" && tour.leave()) page.say("");
  else if (event.key === "?") document.getElementById("keys").showModal();
  else {
    const own = script(views.find((view) => view.name === page.name));
    if (!(own && own.key && own.key(event, page))) return;
  }
  event.preventDefault();
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  readTheme();
  page.redraw();
}

const MOST_JSON = 200000;
function twin() {
  const view = page.about.views.find((one) => one.name === page.name);
  const text = view.absent || view.problem ? "no data" : JSON.stringify(page.current, null, 1);
  const dialog = document.getElementById("twin");
  dialog.replaceChildren(
    el("h2", { id: "twin-title" }, `${view.title} as JSON`), el("p", {}, el("code", {}, `${view.command} --json`)),
    el("pre", { tabindex: 0, "aria-label": "JSON" }, text.length > MOST_JSON
      ? `${text.slice(0, MOST_JSON)}\n... ${(text.length - MOST_JSON).toLocaleString("en")} characters more` : text),
    closer(dialog));
  dialog.showModal();
}

function closer(dialog) { return el("button", { type: "button", on: { click: () => dialog.close() } }, "Close"); }

// --- the frame -----------------------------------------------------------------------------------------------------------

function frame() {
  const tabs = page.about.views.map((view, i) => el("button", {
    role: "tab", id: `tab-${view.name}`, type: "button", "aria-controls": "panel", tabindex: -1,
    class: view.absent || view.problem ? "quiet" : null, on: { click: () => page.go(view.name) } },
    view.title, i < 10 ? el("kbd", { "aria-hidden": "true" }, (i + 1) % 10) : null));
  const help = el("dialog", { id: "keys", "aria-labelledby": "keys-title" });
  append(help, [el("h2", { id: "keys-title" }, "Keys"), marks.table({ title: "", header: ["key", "does"], rows: allKeys() }),
    closer(help)]);
  const button = (text, name, call) => el("button", { type: "button", "aria-label": name, title: name, on: { click: call } }, text);
  document.body.append(
    el("header", {}, el("h1", {}, "core view"), el("nav", { "aria-label": "Views" }, el("div", { role: "tablist" }, tabs)),
      el("span", { class: "run" }, page.about.title), tour.button(), button("◐", "Dark or light (t)", theme),
      button("?", "Keys (?)", () => help.showModal())),
    el("main", {}, tour.bar(), el("p", { id: "question" }), el("div", { id: "panel", role: "tabpanel", tabindex: 0 })),
    el("footer", {}, el("span", {}, "The same in a terminal: "), el("code", { id: "command" }),
      button("JSON", "The data as JSON (j)", twin)),
    help, el("dialog", { id: "twin", "aria-labelledby": "twin-title" }), el("div", { id: "say", "aria-live": "polite" }));
}

async function start() {
  page.about = await block("about");
  readTheme();
  frame();
  document.addEventListener("keydown", keys);
  addEventListener("hashchange", () => show(fromAddress(), {}));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); page.redraw(); });
  await show(fromAddress(), {});
  document.documentElement.dataset.ready = "1";
}

// --- generic marks -------------------------------------------------------------------------------------------------------

const MOST_ROWS = 200;
const marks = {
  table({ title, header, rows }) {
    const numeric = header.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
    const line = (row) => el("tr", {}, row.map((cell, i) => el("td", { class: numeric[i] ? "n" : null }, number(cell))));
    const body = el("tbody", {}, rows.slice(0, MOST_ROWS).map(line));
    const more = rows.length > MOST_ROWS && el("button", { type: "button", on: { click(event) {
      append(body, rows.slice(MOST_ROWS).map(line));
      event.target.remove();
    } } }, `all ${rows.length.toLocaleString("en")} rows`);
    return card(title, scrolled(title || "table", "",
      el("table", {}, el("thead", {}, el("tr", {}, header.map((name, i) =>
        el("th", { scope: "col", class: numeric[i] ? "n" : null }, name)))), body)), more);
  },

  // size: pixels of a cell. point(row, column) is called for the cell that is pointed at; unit(value): the text of one.
  matrix({ title, values, rows, columns, size, point, unit }) {
    const height = values.length, width = height ? values[0].length : 0;
    if (!width) return card(title, el("p", { class: "dim" }, "no numbers"));
    const largest = Math.max(1e-30, ...values.map((row) => Math.max(...row.map((v) => Math.abs(v || 0)))));
    const cell = size || Math.max(2, Math.min(18, Math.floor(640 / Math.max(width, height))));
    const read = (i, j) => `${rows && rows[i] !== undefined ? rows[i] : `row ${i}`}, ` +
      `${columns && columns[j] !== undefined ? columns[j] : `column ${j}`}: ${(unit || number)(values[i][j])}`;
    const picture = cells(values.map((row) => row.map((v) => (v === null ? null : v / largest))), cell);
    const out = el("output", { class: "read" }, `largest ${number(largest)}`);
    return card(title, pointed(picture, height, width, cell, title, (i, j) => {
      out.textContent = read(i, j);
      page.say(read(i, j));
      if (point) point(i, j);
    }), out);
  },

  lines({ title, x, series, x_name }) {
    return chart({ title, x_name, curves: Object.entries(series).map(([name, ys]) => ({ name, xs: x, ys })) });
  },

  bars({ title, values, unit }) {
    const largest = Math.max(1e-30, ...Object.values(values).map(Math.abs));
    return card(title, el("table", { class: "bars" }, el("tbody", {}, Object.entries(values).map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "n" }, `${number(value)}${unit ? ` ${unit}` : ""}`),
        el("td", { class: "bar" }, el("div", { class: value < 0 ? "cold" : "hot",
          style: { width: `${(100 * Math.abs(value)) / largest}%` } })))))));
  },

  text({ title, lines }) {
    return card(title, scrolled(title || "text", "", el("pre", {}, lines.join("\n"))));
  },

  // Nodes as the graph has them: a row a layer, a column for each of its nodes; others by themselves.
  colours({ title, values }) {
    const layers = new Map(), alone = {};
    for (const [name, value] of Object.entries(values)) {
      const parts = /^(.*?)\.(\d+)\.(.*)$/.exec(name);
      if (!parts) alone[name] = value;
      else layers.set(`${parts[1]}.${parts[2]}`, { ...layers.get(`${parts[1]}.${parts[2]}`), [parts[3]]: value });
    }
    const columns = [...new Set([...layers.values()].flatMap(Object.keys))], rows = [...layers.keys()];
    const grid = rows.map((row) => columns.map((name) => layers.get(row)[name] ?? null));
    return el("div", {}, rows.length ? marks.matrix({ title, values: grid, rows, columns, size: 22 }) : null,
      Object.keys(alone).length ? marks.bars({ title: rows.length ? `${title}: outside of layers` : title, values: alone }) : null);
  },
};

function card(title, ...children) { return el("section", { class: "card" }, title ? el("h2", {}, title) : null, children); }

// Curves in one picture; the values at a place that is pointed at are read below it. A curve has its places `xs` in order,
// numbers `ys`, and `marked`, places with a ring. log: a logarithmic scale, which has no place for 0 and below.
function chart({ title, curves, x_name, log = false, size: [W, H] = [860, 260] }) {
  const left = 70, right = 14, bottom = 26, scale = (y) => (!log ? y : y > 0 ? Math.log10(y) : null);
  const drawn = curves.map((one) => ({ ...one, heights: one.ys.map(scale) }));
  const finite = drawn.flatMap((one) => one.heights).filter(Number.isFinite);
  if (!finite.length) return card(title, el("p", { class: "dim" }, log ? "no positive numbers" : "no numbers"));
  const places = [...new Set(curves.flatMap((one) => one.xs))].sort((a, b) => a - b), first = places[0], last = places.at(-1);
  const [low, high] = finite.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]);
  const px = (x) => left + ((x - first) / (last - first || 1)) * (W - left - right);
  const py = (y) => 10 + ((high - y) / (high - low || 1)) * (H - bottom - 10);
  const dot = (one, i, props) => Number.isFinite(one.heights[i]) && svg("circle", { cx: px(one.xs[i]), cy: py(one.heights[i]), ...props });
  const rule = svg("line", { y1: 8, y2: H - bottom, stroke: "var(--dim)", visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "plot", "aria-hidden": "true" },
    [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low)).map((y) => [
      svg("line", { x1: left, x2: W - right, y1: py(y), y2: py(y), stroke: "var(--line)" }),
      svg("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, number(log ? 10 ** y : y))]),
    [first, last].map((x, i) => svg("text", { x: px(x), y: H - 6, "text-anchor": i ? "end" : "start" }, `${i ? "" : `${x_name} `}${number(x)}`)),
    drawn.map((one, n) => [svg("path", { fill: "none", stroke: role(n), "stroke-width": 1.6, "stroke-dasharray": DASHES[n % DASHES.length],
      d: path(one.xs, one.heights, px, py) }),
    one.xs.length === 1 && dot(one, 0, { r: 3, fill: role(n) }),
    (one.marked || []).map((x) => dot(one, one.xs.indexOf(x), { r: 4, fill: "none", stroke: role(n), "stroke-width": 2 }))]), rule);
  const out = el("output", { class: "read" }, curves.map((one, n) => legend(n, one.name)));
  let at = places.length - 1;
  const move = (index) => {
    at = clamp(index, places.length - 1);
    for (const key of ["x1", "x2"]) rule.setAttribute(key, px(places[at]));
    rule.setAttribute("visibility", "visible");
    out.replaceChildren(`${x_name} ${number(places[at])}: `);
    append(out, curves.map((one, n) => one.xs.length > 0 && legend(n, `${one.name} ${number(one.ys[nearest(one.xs, places[at])])}`)));
    page.say(out.textContent);
  };
  return card(title, el("div", { class: "pointed", tabindex: 0, role: "group", "aria-label": title, on: {
    pointermove(event) {
      const box = picture.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * W;
      move(nearest(places, first + ((x - left) / (W - left - right)) * (last - first)));
    },
    keydown(event) {
      const far = Math.max(1, Math.round(places.length / 200)) * (event.shiftKey ? 10 : 1);
      if (stepped(event, (_, dx) => move(at + dx * far))) event.preventDefault();
    },
  } }, picture), out);
}

function legend(n, text) {
  return el("span", { class: "legend" }, svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26,
    y1: 5, y2: 5, stroke: role(n), "stroke-width": 2, "stroke-dasharray": DASHES[n % DASHES.length] })), text);
}

function path(x, values, px, py) {
  let out = "", pen = "M";
  for (let i = 0; i < x.length; i++) {
    const value = values[i];
    if (value === null || !Number.isFinite(value)) { pen = "M"; continue; }
    out += `${pen}${px(x[i]).toFixed(1)} ${py(value).toFixed(1)}`;
    pen = "L";
  }
  return out;
}

function nearest(x, value) {
  let low = 0, high = x.length - 1;
  while (high - low > 1) { const middle = (low + high) >> 1; if (x[middle] < value) low = middle; else high = middle; }
  return value - x[low] < x[high] - value ? low : high;
}

// A canvas of colours for numbers in -1..1, null for none; `cell` pixels a cell, `high` of them down.
function cells(values, cell, high = cell) {
  const height = values.length, width = values[0].length;
  const canvas = el("canvas", { width, height, class: "cells", "aria-hidden": "true",
    style: { width: `${width * cell}px`, height: `${height * high}px` } });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  values.forEach((row, i) => row.forEach((value, j) => {
    const [r, g, b] = value === null ? [128, 128, 128] : channels(value);
    image.data.set([r, g, b, value === null ? 60 : 255], 4 * (i * width + j));
  }));
  context.putImageData(image, 0, 0);
  return canvas;
}

// A picture of cells in which one can be pointed at, by pointer and arrows. `move(i, j)` is called for each.
function pointed(picture, height, width, cell, name, move, high = cell) {
  let at = [0, 0];
  const cursor = el("div", { class: "cursor", style: { width: `${cell}px`, height: `${high}px`, display: "none" } });
  const to = (i, j) => {
    at = [clamp(i, height - 1), clamp(j, width - 1)];
    cursor.style.display = "block";
    cursor.style.transform = `translate(${at[1] * cell}px, ${at[0] * high}px)`;
    move(...at);
  };
  return el("div", { class: "pointed", tabindex: 0, role: "group", "aria-label": `${name}, ${height} by ${width} cells`, on: {
    pointermove(event) {
      const box = picture.getBoundingClientRect();
      const i = Math.floor(((event.clientY - box.top) / box.height) * height), j = Math.floor(((event.clientX - box.left) / box.width) * width);
      if (i >= 0 && j >= 0 && i < height && j < width && (i !== at[0] || j !== at[1] || cursor.style.display === "none")) to(i, j);
    },
    keydown(event) { if (stepped(event, (di, dj) => to(at[0] + di, at[1] + dj))) event.preventDefault(); },
  } }, picture, cursor);
}

// Whether an event is an arrow key, which calls `move(down, right)`; the page does not see it.
function stepped(event, move) {
  const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!way || event.ctrlKey || event.altKey || event.metaKey) return false;
  event.stopPropagation();
  move(...way);
  return true;
}
