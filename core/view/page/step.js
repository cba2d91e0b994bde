// One step: the graph at the left, the selected node at the right with its tensors, the step as a strip below.

const WAYS = ["forward", "backward"], MANY_LAYERS = 16, CHUNK = 8, WIDE = 248, TALL = 200;
let data, now;  // the data; { node, way, open } and the elements that change

lens("step", {
  keys: [["b", "forward or backward"], ["f", "fold or unfold"]],
  draw(root, given, page) {
    data = given;
    now = { node: byName(page.get("node")) || byName(data.front), way: page.get("way") === "backward" ? 1 : 0, open: new Set() };
    for (const layer of (page.get("open") || now.node.layer).split(",")) now.open.add(layer);
    now.scale = scaleOf(data.nodes.flatMap((n) => n.rms));
    now.graph = el("div", { class: "graph", role: "group", "aria-label": "Graph, from the input to the loss" });
    now.detail = el("div", { class: "detail", tabindex: 0, role: "group", "aria-label": "The selected node" });
    now.strip = strip();
    append(root, [
      el("p", { class: "facts" }, `Step ${number(data.step)}: loss ${number(data.loss)}, norm ${number(data.norm)}, lr ${number(data.lr)} `,
        badge(data.exact ? "good" : "part", data.label)),
      data.left_out.length ? el("p", { class: "facts small dim" }, `Left out: ${data.left_out.join("; ")}.`) : null,
      el("div", { class: "panes" }, now.graph, now.detail), now.strip.element]);
    drawGraph();
    drawDetail();
  },
  lit(role) {  // how many cells of a figure light up, for tests of the page
    const { light } = now.figures.get(role), pixels = light.getContext("2d").getImageData(0, 0, light.width, light.height).data;
    return pixels.filter((v, i) => i % 4 === 3 && v).length;
  },
  example({ nodes, rules }) {  // the node nearest to the middle of the graph of which a number's parts are known, and that number
    const own = (node) => (node.runs === node.name && node.forward.writes || []).find((role) => rulesOf(node, rules)[role] && role in node.roles);
    const middle = nodes.length / 2, far = (node) => Math.abs(nodes.indexOf(node) - middle);
    const node = nodes.filter(own).sort((a, b) => far(a) - far(b))[0];
    return node ? { node: node.name, point: `${own(node)},1,1` } : { node: nodes[Math.floor(middle)].name };
  },
  shown() { now.graph.querySelector("[aria-current]")?.scrollIntoView({ block: "center" }); },
  key(event, page) {
    const nodes = data.nodes, at = nodes.indexOf(now.node);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) select(nodes[clamp(at + step, nodes.length - 1)], now.way);
    else if (event.key === "b") select(now.node, 1 - now.way);
    else if (event.key === "f") fold(now.node.layer);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft")
      moment(momentNow() + (event.key === "ArrowRight" ? 1 : -1) * (event.shiftKey ? 10 : 1));
    else return false;
    return true;
  },
});

function byName(name) { return data.nodes.find((node) => node.name === name); }
function short(node) { return node.layer ? node.name.slice(node.layer.length + 1) : node.name; }

function select(node, way) {
  Object.assign(now, { node, way });
  if (node.layer && !now.open.has(node.layer)) now.open.add(node.layer);
  page.set({ node: node.name, way: WAYS[way], point: null, open: [...now.open].filter(Boolean).join(",") });
  const held = now.graph.contains(document.activeElement);
  drawGraph();
  drawDetail();
  const current = now.graph.querySelector("[aria-current]");
  current?.scrollIntoView({ block: "nearest" });
  if (held) current?.focus({ preventScroll: true });
  page.say(`${node.name}, ${WAYS[way]}, ${node.op}, ${node.variant || "not run"}`);
}

function fold(layer) {
  if (!layer) return;
  if (!now.open.delete(layer)) now.open.add(layer);
  page.set({ open: [...now.open].filter(Boolean).join(",") || "none" });
  const held = document.activeElement?.dataset?.layer;
  drawGraph();
  if (held) now.graph.querySelector(`[data-layer="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

// --- the graph -------------------------------------------------------------------------------------------------------

function scaleOf(values) {
  const logs = values.filter((v) => v > 0).map(Math.log10);
  const low = Math.min(0, ...logs), high = Math.max(0, ...logs);
  return (v) => (v > 0 ? 0.06 + (0.94 * (Math.log10(v) - low)) / (high - low || 1) : 0);
}

function drawGraph() {
  const layers = [...new Set(data.nodes.map((n) => n.layer))].filter(Boolean);
  const folded = layers.length > MANY_LAYERS;
  const rows = [el("div", { class: "node titles" }, el("span", {}), el("span", {}, "node"), el("span", {}, "forward"), el("span", {}, "backward"))];
  const streams = data.nodes.map((n) => n.stream), first = streams.indexOf(true), end = streams.lastIndexOf(true);
  let last = null;
  for (const [number, node] of data.nodes.entries()) {
    const along = number >= first && number <= end && first >= 0;
    if (node.layer !== last && node.layer) {
      const at = layers.indexOf(node.layer), chunk = layers.slice(at - (at % CHUNK), at - (at % CHUNK) + CHUNK);
      const inside = !folded || chunk.some((layer) => now.open.has(layer));
      if (inside) rows.push(layerRow([node.layer], now.open.has(node.layer), along));
      else if (at % CHUNK === 0) rows.push(layerRow(chunk, false, along));
    }
    last = node.layer;
    if (!node.layer || now.open.has(node.layer)) rows.push(nodeRow(node, along));
  }
  now.graph.replaceChildren(...rows);
}

function layerRow(layers, open, along) {
  const inside = data.nodes.filter((n) => layers.includes(n.layer)), end = inside.filter((n) => n.stream).pop() || inside[inside.length - 1];
  const name = layers.length > 1 ? `${layers[0]} … ${layers[layers.length - 1]}` : layers[0];
  return el("button", { type: "button", class: "node layer", "aria-expanded": open, "data-layer": layers[0], on: { click: () => fold(layers[0]) } },
    el("span", { class: `rail${along ? " along" : ""}`, "aria-hidden": "true" }), el("span", {}, `${open ? "▾" : "▸"} ${name}`, el("small", {}, ` ${inside.length} nodes`)),
    end.rms.map((value, i) => bar(value, i)));
}

function nodeRow(node, along) {
  const kind = `rail${along ? " along" : ""}${node.sum ? " sum" : node.stream ? "" : " branch"}`;
  const rail = el("span", { class: kind, "aria-hidden": "true" }, node.sum ? el("b", {}, "+") : null);
  const ran = node.fused ? `in ${node.fused}` : node.runs ? node.variant.split(".")[1] : "does not run";
  return el("button", { type: "button", class: `node${node.layer ? " inner" : ""}${node.fused ? " fused" : ""}`,
    "aria-current": node === now.node ? "true" : null, on: { click: () => select(node, now.way) } },
    rail, el("span", {}, short(node), el("small", {}, ` ${node.op} · ${ran}`)), node.rms.map((value, i) => bar(value, i)));
}

function bar(value, way) {
  return el("span", { class: `rms way${way}${typeof value === "string" ? " bad" : ""}` }, el("i", { style: { width: `${100 * now.scale(value)}%` } }), 
    el("span", {}, typeof value === "number" ? number(Number(value.toPrecision(2))) : value || ""));
}

// --- the selected node -------------------------------------------------------------------------------------------------

function drawDetail() {
  const node = now.node, way = node[WAYS[now.way]], formula = data.formulas[node.op];
  const toggle = WAYS.map((name, i) => el("button", { type: "button", "aria-pressed": i === now.way, on: { click: () => select(node, i) } }, name));
  now.figures = new Map();
  now.strip.move();
  now.read = el("output", { class: "read made" }, "Point at a number: it lights up the numbers that it is made of.");
  const lists = ["reads", "writes", "saved"].map((verb) => [verb, (way[verb] || [])]).filter(([, roles]) => roles.length);
  now.detail.replaceChildren(
    el("div", { class: "row" }, el("h2", {}, node.name), toggle, node.runs
      ? badge("good", `${node.variant}${node.fused ? `: fused into ${node.runs}` : ""}`) : badge("none", "no request needs it: it does not run")),
    el("p", { class: "row small" }, elsewhere(node)),
    el("p", { class: "toml" }, el("code", {}, node.toml), el("span", { class: "dim" }, ` ${node.where}`)),
    now.read,
    el("div", { class: "flow" }, lists.map(([verb, roles]) => el("section", { class: verb }, el("h3", {}, verb === "saved" ? "saved for backward" : verb),
      el("div", { class: "tensors" }, roles.map((role) => tensor(role, verb)))))),
    el("details", { open: true }, el("summary", {}, "Formula"), el("p", {}, formula.doc), el("pre", { class: "wrap" }, formula.formula), el("p", { class: "dim" }, formula.where)),
    codeOf(node));
  const [role, ...at] = (page.get("point") || "").split(","), [i, j] = at.map(Number), pointed = now.figures.get(role);
  if (pointed && i < pointed.height && j < pointed.width) point(role, i, j);
}

// The same node, or the one into which it was fused, in other views.
const OTHERS = [["memory", "its memory"], ["time", "its time"], ["trust", "its checks"], ["health", "over steps"]];
function elsewhere(node) {
  return OTHERS.map(([name, text]) => jump(name, { node: node.runs || node.name }, text));
}

function codeOf(node) {
  const blocks = data.code[node.variant] || [];
  if (!blocks.length) return null;
  return el("details", {}, el("summary", {}, `Code of ${node.variant}`), blocks.map((block) => [
    el("h3", {}, `${block.title}  ${block.file}:${block.first}`),
    scrolled(`${block.title}, ${block.file}`, "", el("pre", {},
      block.lines.map((line, i) => `${String(block.first + i).padStart(5)}  ${line}`).join("\n"))),
    block.left_out ? el("p", { class: "dim" }, `${number(block.left_out)} lines more in the file`) : null]));
}

function tensor(role, verb) {
  const node = now.node, value = node.names[role.replace(/^update /, "")] || (role.startsWith("d") ? node.names[role.slice(1)] : "");
  const at = node.roles[role];
  if (at === undefined) {
    const why = node.fused ? `inside ${node.fused}: never in memory` : "not computed";
    return el("div", { class: "tensor none" }, el("b", {}, role), ` ${value || ""} `, el("span", { class: "dim" }, why));
  }
  const one = data.pictures[at], shape = one.shape.join(" x ") || "1";
  const blocks = one.block[0] * one.block[1] > 1 ? `; a cell is the strongest of ${one.block[0]} x ${one.block[1]}` : "";
  const head = el("div", { class: "cap" }, el("b", {}, role), el("span", {}, ` ${value && value !== role ? value : ""} `), el("span", { class: "dim" }, `${shape} ${one.dtype}`));
  const stats = `rms ${number(one.rms)} · mean ${number(one.mean)} · ${number(one.min)} to ${number(one.max)} · zeros ${number(one.zeros)}` +
    (one.nan || one.inf ? ` · NaN ${one.nan} · inf ${one.inf}` : "");
  return el("div", { class: "tensor" }, head, figure(role, one, `${role}, ${shape}${blocks}`), histogramOf(one),
    el("div", { class: "dim small" }, stats), blocks ? el("div", { class: "dim small" }, blocks.slice(2)) : null);
}

function figure(role, one, name) {
  const values = decode(one), height = values.length, width = height ? values[0].length : 0;
  if (!width) return el("p", { class: "dim" }, "empty");
  const cell = Math.max(1, Math.min(18, WIDE / width, height === 1 ? 18 : TALL / height));
  const high = height === 1 ? Math.max(14, cell) : cell;
  const picture = cells(values, cell, high), light = el("canvas", { class: "light", width, height, "aria-hidden": "true",
    style: { width: `${width * cell}px`, height: `${height * high}px` } });
  const frame = pointed(picture, height, width, cell, name, (i, j) => point(role, i, j), high);
  frame.append(light);
  now.figures.set(role, { one, values, light, height, width });
  return frame;
}

const unpacked = new Map();
function decode(one) {
  if (unpacked.has(one)) return unpacked.get(one);
  const bytes = bytesOf(one.cells), wide = one.bits === 16;
  const width = Math.ceil(one.size[1] / one.block[1]), height = Math.ceil(one.size[0] / one.block[0]);
  const at = (k) => (wide ? half(bytes[2 * k] | (bytes[2 * k + 1] << 8)) : level(bytes[k]));
  const values = Array.from({ length: height }, (_, i) => Array.from({ length: width }, (_, j) => at(i * width + j)));
  const strong = strength(values);
  const shown = values.map((row) => row.map((v) => (v === null ? null : Math.max(-1, Math.min(1, v / strong)))));
  shown.exact = values;
  unpacked.set(one, shown);
  return shown;
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, share = bits & 1023;
  if (power === 31) return null;
  return sign * (power ? (1 + share / 1024) * 2 ** (power - 15) : (share / 1024) * 2 ** -14);
}
function level(byte) {
  if (byte === 0) return null;
  const size = Math.abs(byte - 128);
  return size ? Math.sign(byte - 128) * 10 ** (3.5 * (size / 127 - 1)) : 0;
}
function strength(values) {  // full colour at 2.5 rms of the cells: outliers do not make all others pale
  const flat = values.flat().filter((v) => v !== null);
  const rms = Math.sqrt(flat.reduce((sum, v) => sum + v * v, 0) / (flat.length || 1));
  return Math.min(1, 2.5 * rms) || 1;
}

function histogramOf(one) {
  const most = Math.max(1, ...one.histogram), W = 120, H = 22, n = one.histogram.length || 1;
  return svg("svg", { class: "bins", viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img",
    "aria-label": `histogram from ${number(one.min)} to ${number(one.max)}` },
    one.histogram.map((count, i) => count ? svg("rect", { x: (i * W) / n, width: W / n - 0.5, y: H - (H * Math.sqrt(count / most)), height: H * Math.sqrt(count / most), fill: "var(--dim)" }) : null));
}

// --- what a number is made of ----------------------------------------------------------------------------------------

function rulesOf(node, rules) {
  const own = rules[node.name] || {};
  return own.as ? rules[own.as] || {} : own;
}

function point(role, i, j) {
  const target = now.figures.get(role), { one } = target;
  for (const { light } of now.figures.values()) light.getContext("2d").clearRect(0, 0, light.width, light.height);
  const rows = span(i, one.block[0], one.size[0]), columns = span(j, one.block[1], one.size[1]);
  const places = [];
  for (const [source, rule] of Object.entries(rulesOf(now.node, data.rules)[role] || {})) {
    const figure = now.figures.get(source), boxes = Array.isArray(rule) ? rule : inTable(rule, rows[0], columns[0], one.size);
    if (!figure || !boxes.length) continue;
    const lit = boxes.map((box) => [spans(box.rows, rows, columns, one.size, figure.one.size[0]), spans(box.columns, rows, columns, one.size, figure.one.size[1])]);
    lit.forEach(([down, across]) => shine(figure, down, across));
    const where = lit.map(([down, across]) => `${words(down, figure.one.size[0])}, ${words(across, figure.one.size[1])}`).join(" and ");
    places.push(where === ":, :" ? `all of ${source}` : `${source}[${where}]`);
  }
  const exact = target.values.exact[i][j], value = exact === null ? "not finite" : number(exact * one.largest);
  const about = one.bits === 16 ? "" : "about ";
  const text = `${role}[${words([rows], -1)}, ${words([columns], -1)}] = ${about}${value}` +
    (places.length ? `, made of ${places.join(", ")}` : "") +
    (now.node.shared.includes(role) ? `, summed with what the other readers of ${now.node.names[role.slice(1)]} gave` : "");
  now.read.textContent = text;
  page.say(text);
}

function span(cell, block, size) { return [cell * block, Math.min(size, (cell + 1) * block)]; }

function inTable({ boxes, grid }, row, column, size) {
  return boxes[grid[Math.floor((row * grid.length) / size[0])][Math.floor((column * grid[0].length) / size[1])]];
}

function spans(rule, rows, columns, target, size) {
  if (rule === "*") return [[0, size]];
  if (rule === "r") return [rows];
  if (rule === "c") return [columns];
  if (Array.isArray(rule)) return rule;
  if (rule === "f") return Array.from({ length: rows[1] - rows[0] }, (_, i) => columns.map((c) => (rows[0] + i) * target[1] + c));
  const axis = rule.r ? 0 : 1, list = rule.r || rule.c, [from, to] = axis ? columns : rows;
  const pieces = (place) => Math.min(list.length - 1, Math.floor((place * list.length) / target[axis]));
  return list.slice(pieces(from), pieces(to - 1) + 1).flat();
}

function shine({ one, light, width, height }, down, across) {
  const context = light.getContext("2d");
  context.fillStyle = variable("--lit");
  for (const [top, bottom] of down) for (const [left, right] of across) {
    const x = Math.floor(left / one.block[1]), y = Math.floor(top / one.block[0]);
    context.clearRect(x, y, 1, 1);
    context.fillRect(x, y, Math.min(width, Math.ceil(right / one.block[1])) - x, Math.min(height, Math.ceil(bottom / one.block[0])) - y);
  }
}

function words(list, size) {
  return list.slice(0, 3).map(([from, to]) => (from === 0 && to === size ? ":" : to === from + 1 ? `${from}` : `${from}:${to}`)).join(" ") + (list.length > 3 ? " …" : "");
}

// --- the step as a strip -----------------------------------------------------------------------------------------------

function nodeOfMoment(one) {
  return byName(one.node) || data.nodes.find((node) => node.runs === one.node);
}
function momentNow() {
  const way = WAYS[now.way];
  const at = data.moments.findIndex((one) => one.node === now.node.runs && (one.kind.startsWith(way) || one.kind.endsWith(way)));
  return at < 0 ? data.moments.findIndex((one) => one.node === now.node.runs) : at;
}
function moment(at) {
  const one = data.moments[clamp(at, data.moments.length - 1)];
  if (one) select(nodeOfMoment(one), one.kind.endsWith("backward") && !one.kind.startsWith("forward") ? 1 : 0);
}

function strip() {
  const W = 1240, H = 44, n = data.moments.length || 1, wide = W / n;
  const bars = data.moments.map((one, i) => {
    const node = nodeOfMoment(one), back = one.kind === "backward", size = 3 + 17 * now.scale(node ? node.rms[back ? 1 : 0] : 0);
    return svg("rect", { x: i * wide, width: Math.max(0.5, wide - 0.7), y: back ? H / 2 : H / 2 - size, height: size, fill: back ? "var(--role1)" : "var(--role0)" });
  });
  const cursor = svg("rect", { y: 0, height: H, width: Math.max(3, wide), fill: "none", stroke: "var(--ink)", "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" });
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", class: "strip", "aria-hidden": "true" }, bars, cursor);
  return { move: () => cursor.setAttribute("x", Math.max(0, momentNow()) * wide), element: el("div", { class: "strip", role: "group", "aria-label": "The step: forward above, backward below", on: { click(event) {
    const box = picture.getBoundingClientRect();
    moment(Math.floor(((event.clientX - box.left) / box.width) * n));
  } } }, picture) };
}
