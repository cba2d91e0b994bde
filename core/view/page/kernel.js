// Launches of kernels, a source line at a time: 32 lanes, the bytes that each touches, sectors, banks, shuffles, barriers.
//
// State in the address: of pane 1 and 2 `k1`, `k2` (launch), `w1`, `w2` (the warp's place in the data), `s1`, `s2` (step),
// and `pane`, the one that keys move. Keys: arrows a step or a warp, n and p the next and the previous access, Home, End,
// x the other pane, g the next access of strict mode's error.

const FULL = 0xFFFFFFFF, MOST_SECTORS = 48, MOST_ROWS_OF_BANKS = 36;
const VERB = { read: "reads", write: "writes", atomic: "updates" };
const ROLES = { read: "--role0", write: "--role1", atomic: "--role1", shared: "--role3", shuffle: "--role2", barrier: "--accent" };
const LEGEND = [["reads", "--role0"], ["writes", "--role1"], ["shared memory", "--role3"], ["shuffle", "--role2"], ["barrier", "--accent"]];
let panes = [];

lens("kernel", {
  draw(root, data, page) {
    const two = data.kernels.length > 1;
    panes = data.kernels.slice(0, 2).map((kernel, i) => new Pane(data, i, page, two));
    append(root, [el("div", { class: two ? "kpanes two" : "kpanes" }, panes.map((pane) => pane.root))]);
    activate(Number(page.get("pane") || 0), page);
  },
  shown() { for (const pane of panes) pane.update(); },
  key(event, page) {
    const pane = panes.find((one) => one.active);
    if (!pane) return false;
    const far = event.shiftKey ? 10 : 1;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") pane.move(event.key === "ArrowRight" ? far : -far);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") pane.other(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "n" || event.key === "p") pane.event(event.key === "n" ? 1 : -1);
    else if (event.key === "Home" || event.key === "End") pane.go(event.key === "Home" ? 0 : Infinity);
    else if (event.key === "g") pane.fault();
    else if (event.key === "x" && panes.length > 1) activate(1 - panes.indexOf(pane), page);
    else return false;
    return true;
  },
});

function activate(which, page) {
  panes.forEach((pane, i) => {
    pane.active = i === which || panes.length === 1;
    pane.root.classList.toggle("active", pane.active && panes.length > 1);
  });
  page.set({ pane: which || null });
}

// --- data ------------------------------------------------------------------------------------------------------------

function unpacked(values) {
  if (Array.isArray(values)) return values;
  const [start, stride, count] = values.s;
  return Array.from({ length: count }, (_, i) => start + stride * i);
}

function lanesIn(mask) { return Array.from({ length: 32 }, (_, i) => i).filter((i) => (mask >>> i) & 1); }
function lanesOf(event) { return event.lanes ? unpacked(event.lanes) : lanesIn(event.m === undefined ? FULL : event.m); }
function maskOf(step) { return step.m === undefined ? FULL : step.m; }
function bits(mask) { return lanesIn(mask).length; }

// The lanes that run: those that came, less those that a predicate turns off in an access of the step.
function lanesOn(step) {
  const events = (step.e || []).filter((e) => e.kind === "access");
  if (!events.length) return maskOf(step);
  return events.reduce((mask, e) => lanesOf(e).reduce((all, lane) => all | (1 << lane), mask), 0) >>> 0;
}

function valuesOf(step) {
  const from = [...(step.e || [])].reverse().find((e) => e.v !== undefined) || (step.v !== undefined ? step : null);
  if (!from) return { register: "", values: [] };
  const lanes = from === step ? lanesIn(maskOf(step)) : lanesOf(from), list = unpacked(from.v), values = [];
  lanes.forEach((lane, i) => { if (i < list.length) values[lane] = list[i]; });
  return { register: from.r || "", values };
}

// A lane's colour: blue to pale to orange; the ink that one reads on it.
const PALE = [236, 229, 206];
function laneColour(lane) {
  const [r, g, b] = lane < 16 ? between(ink.cold, PALE, lane / 15.5) : between(PALE, ink.hot, (lane - 15.5) / 15.5);
  const linear = (v) => (v <= 10 ? v / 3295 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);  // relative luminance of WCAG 2
  return { background: `rgb(${r},${g},${b})`, color: light > 0.179 ? "#000" : "#fff" };
}

function short(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value).slice(0, 7);
  const text = Number(value.toPrecision(3));
  return Math.abs(text) >= 1e5 || Math.abs(text) < 1e-3 ? value.toExponential(0) : String(text);
}

// Sums of steps, as core.sim.counting has them of whole launches.
function sumsOf(steps) {
  const sums = { instructions: 0, threads: 0, sectors: 0, fewest: 0, conflicts: 0 };
  for (const step of steps) {
    sums.instructions += step.n;
    sums.threads += step.n * bits(maskOf(step));
    for (const event of step.e || []) {
      sums.sectors += event.sec || 0;
      sums.fewest += event.need || 0;
      sums.conflicts += event.pass || 0;
    }
  }
  return sums;
}

function extent(sizes) {
  const last = sizes.reduce((at, n, i) => (n > 1 ? i : at), 0);
  return sizes.slice(0, last + 1).join(" × ");
}

// "x[3, 17]" of a byte in a buffer.
function element(buffer, byte) {
  let flat = Math.floor(byte / buffer.item);
  const places = [];
  for (const size of buffer.sizes.slice(1).reverse()) { places.unshift(flat % size); flat = Math.floor(flat / size); }
  return `${buffer.name}[${[flat, ...places].join(", ")}]`;
}

// --- a pane: one launch, one warp, one step ----------------------------------------------------------------------------

class Pane {
  constructor(data, number, page, two) {
    Object.assign(this, { data, number, page, two, active: false });
    this.kernel = data.kernels[number];
    const { kernel } = this, state = (key) => page.get(`${key}${number + 1}`);
    this.faults = kernel.launches.flatMap((launch, k) => (launch.faults || []).map((fault) => {
      const w = launch.warps.findIndex((one) => one.block === fault.block && one.warp === fault.warp);
      return { ...fault, k, w, shown: w >= 0 && fault.step !== null };
    }));
    const fault = this.faults.filter((one) => one.shown).pop();  // a page opens at strict mode's error
    if (fault && !["k", "w", "s"].some(state)) page.set({ [`k${number + 1}`]: fault.k, [`w${number + 1}`]: fault.w, [`s${number + 1}`]: fault.step });
    this.at = Number(state("s") || 0);
    this.launch = kernel.launches[Number(state("k") || 0)] || kernel.launches[0];
    const asked = Math.max(0, this.launch.warps.findIndex((w) => w.warp === data.warp));
    this.warp = this.launch.warps[Number(state("w") ?? asked)] || this.launch.warps[0];
    this.root = el("section", { class: "kpane", "aria-label": this.kernel.name, on: { pointerdown: () => activate(number, page) } });
    this.build();
  }

  get steps() { return this.warp.steps; }
  get step() { return this.steps[this.at]; }

  build() {
    this.source = el("div", { class: "ksource", tabindex: 0, role: "group", "aria-label": "Source, the line of the step marked" });
    this.detail = el("div", { class: "kdetail", tabindex: 0, role: "group", "aria-label": "The step" });
    this.strip = el("canvas", { class: "kstrip", height: 44, tabindex: 0, role: "slider", "aria-label": "Step of the warp",
      "aria-valuemin": 1, on: { pointerdown: (event) => this.seek(event), pointermove: (event) => event.buttons && this.seek(event) } });
    this.words = el("div", { class: "kwords" });
    const problem = this.kernel.error ? this.problem() : null;
    this.root.replaceChildren();
    append(this.root, [this.head(), problem, el("div", { class: "kbody" }, this.source, this.detail),
      el("div", { class: "kfoot" }, el("div", { class: "row" },
        this.button("←", "One step back (←)", () => this.move(-1)), this.button("→", "One step on (→)", () => this.move(1)),
        this.button("next", "The next access, shuffle or barrier (n)", () => this.event(1)), this.words,
        el("span", { class: "klegend" }, LEGEND.map(([name, colour]) => el("span", {}, el("i", { style: { background: `var(${colour})` } }), name)))), this.strip)]);
    this.lines();
  }

  button(text, name, call) { return el("button", { type: "button", title: name, "aria-label": name, on: { click: call } }, text); }

  head() {
    const option = (text, value, on) => el("option", { value, selected: on }, text);
    const launch = el("select", { "aria-label": "Launch", on: { change: (e) => this.choose({ k: e.target.value, w: null, s: 0 }) } },
      this.kernel.launches.map((one, i) => option(`${one.method}: ${one.kernel}`, `${i}`, one === this.launch)));
    this.warps = el("select", { "aria-label": "Thread block and warp", on: { change: (e) => this.choose({ w: e.target.value, s: 0 }) } },
      this.launch.warps.map((one, i) => option(`block ${one.block}, warp ${one.warp}`, `${i}`, one === this.warp)));
    const { totals } = this.launch, share = totals.sectors ? totals.fewest / totals.sectors : 1;
    const fact = (name, value, bad) => el("span", { class: bad ? "kfact bad" : "kfact" }, el("b", {}, number(value)), ` ${name}`);
    return el("div", { class: "khead" },
      el("div", { class: "row" }, el("h2", {}, this.kernel.name), launch, this.warps,
        el("span", { class: "dim" }, `grid ${extent(this.launch.grid)}, block ${extent(this.launch.block)}` + (this.kernel.dtype ? `; ${this.kernel.dtype}, ${this.kernel.example}` : ""))),
      el("div", { class: "row ktotals", title: "Of the whole launch, as core trace counts them" }, "whole launch: ",
        fact("warp instructions", totals.instructions), fact("lanes active", `${Math.round(100 * totals.threads / (32 * totals.instructions || 1))}%`),
        totals.requests ? fact("sectors moved", totals.sectors) : null, totals.requests ? fact("needed", totals.fewest, share < 0.6) : null,
        totals.shared ? fact("shared accesses", totals.shared) : null, totals.shared ? fact("bank conflicts", totals.conflicts, totals.conflicts > 0) : null,
        totals.atomics ? fact("contended turns", totals.contended, totals.contended > 0) : null,
        this.launch.left_out ? el("span", { class: "dim" }, `not taped: ${this.launch.left_out}`, this.kernel.others ? ` (${this.kernel.others.split(" tapes")[0]})` : null) : null));
  }

  problem() {
    const jumps = this.faults.map((fault, i) => {
      const text = `${i + 1 < this.faults.length ? "first" : "then"}: ${fault.how || "access"}, line ${fault.line}, thread ${fault.thread} of block ${fault.block}`;
      return fault.shown ? el("button", { type: "button", on: { click: () => this.fault(fault) } }, text) : el("span", { class: "dim" }, text);
    });
    const { kind, message, hint } = this.kernel.error;
    return el("div", { class: "card kerror" }, el("b", {}, `${GLYPHS.bad} strict mode: ${kind}`), el("p", {}, message),
      hint ? el("p", { class: "dim" }, hint) : null, el("div", { class: "row" }, jumps));
  }

  // The accesses of strict mode's error, in turn.
  fault(to) {
    const shown = this.faults.filter((one) => one.shown);
    const at = shown.findIndex((one) => this.launch.warps[one.w] === this.warp && one.step === this.at);
    const next = to || shown[(at + 1) % shown.length];
    if (next) this.choose({ k: next.k, w: next.w, s: next.step });
  }

  // Another launch, warp or step; the source stays where the launch does.
  choose(values) {
    const named = Object.fromEntries(Object.entries(values).map(([key, value]) => [`${key}${this.number + 1}`, value]));
    this.page.set({ ...named, pane: this.number || null });
    if (values.k !== undefined && this.kernel.launches[Number(values.k)] !== this.launch) { this.page.redraw(); return; }
    if (values.w !== undefined && values.w !== null) {
      this.warp = this.launch.warps[Number(values.w)];
      this.warps.value = `${values.w}`;
      this.sums = null;
    }
    this.go(values.s || 0);
  }

  // The source around the lines that ran, with their counts of the whole launch.
  lines() {
    this.rows = new Map();
    const cell = (text, bad) => el("span", { class: bad ? "kn bad" : "kn" }, text);
    const { totals } = this.launch;
    this.source.classList.toggle("plain", !totals.shared);
    const banks = (text, bad) => (totals.shared ? cell(text, bad) : null);
    const parts = [el("div", { class: "kl khd" }, ["line", "instr", "sectors"].map((name) => cell(name)), banks("confl."), el("span", {}, "source"))];
    this.launch.files.forEach((file, f) => {
      if (!file.lines.length && !file.counts["0"]) return;
      parts.push(el("div", { class: "kfile" }, file.name));
      const line = (n, text) => {
        const c = file.counts[n] || {};
        const row = el("div", { class: "kl" }, cell(n || "–"), cell(c.instructions ? number(c.instructions) : ""),
          cell(c.requests ? number(c.sectors) : "", c.requests && c.fewest / c.sectors < 0.6),
          banks(c.shared ? number(c.conflicts || 0) : "", c.conflicts > 0), el("code", {}, text || " "));
        this.rows.set(`${f}:${n}`, row);
        parts.push(row);
      };
      if (file.counts["0"]) line(0, "(without a line in these files)");
      file.lines.forEach((text, i) => line(file.first + i, text));
    });
    append(this.source, parts);
  }

  // --- moving ----------------------------------------------------------------------------------------------------------

  go(to) {
    this.at = Math.max(0, Math.min(this.steps.length - 1, to));
    this.page.set({ [`s${this.number + 1}`]: this.at });
    this.update();
    this.page.say(`line ${this.step.l}: ${this.summary()}`);
  }

  move(by) { this.go(this.at + by); }

  event(way) {
    let to = this.at + way;
    while (to >= 0 && to < this.steps.length && !this.steps[to].e) to += way;
    if (to >= 0 && to < this.steps.length) this.go(to);
  }

  other(way) {
    const to = this.launch.warps.indexOf(this.warp) + way;
    if (to >= 0 && to < this.launch.warps.length) this.choose({ w: to, s: Math.min(this.at, this.launch.warps[to].steps.length - 1) });
  }

  seek(event) {
    const box = this.strip.getBoundingClientRect();
    this.go(Math.floor(((event.clientX - box.left) / box.width) * this.steps.length));
  }

  // --- drawing a step --------------------------------------------------------------------------------------------------

  summary() {
    const events = (this.step.e || []).map((event) => eventWords(event, this.launch.buffers));
    return events.join("; ") || `${this.step.n} instruction${this.step.n > 1 ? "s" : ""} in registers`;
  }

  update() {
    this.at = clamp(this.at, this.steps.length - 1);
    const { step } = this, row = this.rows.get(`${step.f}:${step.l}`);
    if (this.marked) { this.marked.classList.remove("now"); this.marked.removeAttribute("aria-current"); }
    if (row) {
      row.classList.add("now");
      row.setAttribute("aria-current", "step");
      const top = row.offsetTop, view = this.source;
      if (top < view.scrollTop + 30 || top > view.scrollTop + view.clientHeight - 40) view.scrollTop = top - view.clientHeight / 3;
    }
    this.marked = row;
    const parts = [this.lanes(), ...(step.e || []).map((event) => eventCard(event, this.launch)), this.flying(), this.ptx()];
    this.detail.replaceChildren();
    append(this.detail, parts);
    this.words.replaceChildren();
    const mine = this.sums = this.sums || sumsOf(this.steps);
    append(this.words, [el("b", {}, `step ${this.at + 1} of ${number(this.steps.length)}`),
      el("span", { class: "dim" }, ` · warp: ${number(mine.instructions)} instr., ${number(mine.sectors)} sectors for ${number(mine.fewest)}, ${number(mine.conflicts)} conflicts`)]);
    this.drawStrip();
  }

  lanes() {
    const { step } = this, came = maskOf(step), on = lanesOn(step), { register, values } = valuesOf(step);
    const fault = (this.launch.faults || []).find((one) => one.step === this.at && one.block === this.warp.block && one.warp === this.warp.warp);
    const cells = Array.from({ length: 32 }, (_, lane) => {
      const here = (came >>> lane) & 1, runs = (on >>> lane) & 1, value = values[lane];
      const state = !here ? "not here" : runs ? "" : "off";
      const what = value === undefined ? "" : `: ${value}`;
      return el("div", { class: `klane ${state ? "off" : ""} ${fault && fault.lane === lane ? "fault" : ""}`, title: `lane ${lane}, thread ${32 * this.warp.warp + lane}${state ? `, ${state}` : what}`,
        style: state ? {} : laneColour(lane) }, el("small", {}, lane), el("span", {}, state ? "·" : value === undefined ? "" : short(value)));
    });
    const count = bits(on), turn = step.t > 1 || this.steps.some((one) => one !== step && one.l === step.l && one.f === step.f) ? `, turn ${step.t}` : "";
    return el("div", {}, el("h3", {}, `line ${step.l || "–"}${turn}: ${count} of 32 lanes${came === FULL ? "" : `, ${32 - bits(came)} are elsewhere`}` +
      (register ? `; values of ${register}` : "")), el("div", { class: "klanes", role: "img", "aria-label": `${count} of 32 lanes run` }, cells),
      el("p", { class: "ksay" }, this.summary()));
  }

  flying() {
    const flights = this.step.fly || [];
    if (!flights.length) return null;
    const groups = new Map();
    for (const f of flights) {
      const key = `${f.kind} of warp ${f.warp}, until ${f.until}`;
      groups.set(key, (groups.get(key) || 0) + 1);
    }
    return el("div", { class: "card" }, el("h3", {}, "in flight: asynchronous work that nothing has waited for"),
      el("ul", { class: "kflying" }, [...groups].map(([text, count]) => el("li", {}, el("b", {}, count), ` × ${text}`))));
  }

  ptx() {
    const texts = [];
    for (let i = 0; i < this.step.p.length; i += 2)
      for (let n = 0; n < this.step.p[i + 1]; n++) texts.push(this.launch.ptx[this.step.p[i] + n]);
    return el("details", { class: "kptx", open: this.page.get("ptx") || !this.step.e ? true : null, on: { toggle: (e) => this.step.e && this.page.set({ ptx: e.target.open ? 1 : null }) } },
      el("summary", {}, `PTX: ${texts.length} instruction${texts.length > 1 ? "s" : ""}`), el("pre", {}, texts.join("\n")));
  }

  drawStrip() {
    const canvas = this.strip, width = Math.max(200, canvas.clientWidth), H = 44, n = this.steps.length, w = width / n;
    canvas.width = width;
    const context = canvas.getContext("2d"), colours = Object.fromEntries(Object.entries(ROLES).map(([k, v]) => [k, variable(v)]));
    const plain = variable("--line"), now = variable("--ink");
    this.steps.forEach((step, i) => {
      const event = (step.e || [])[0];
      const kind = !event ? "" : event.kind === "access" ? (event.sec ? event.how : "shared") : event.kind;
      const cost = !event ? 0 : event.kind === "access" ? (event.sec || 1 + (event.pass || 0)) : 32;
      const height = event ? 8 + 30 * Math.min(1, cost / 32) : 4;
      context.fillStyle = kind ? colours[kind] : plain;
      context.fillRect(i * w, H - height, Math.max(1, w * 0.86), height);
    });
    context.strokeStyle = now;
    context.lineWidth = 2;
    context.strokeRect(Math.max(1, this.at * w - 1), 1, Math.max(4, w), H - 2);
    canvas.setAttribute("aria-valuemax", n);
    canvas.setAttribute("aria-valuenow", this.at + 1);
    canvas.setAttribute("aria-valuetext", `line ${this.step.l}, ${this.summary()}`);
  }
}

// --- events ------------------------------------------------------------------------------------------------------------

function eventWords(event, buffers) {
  if (event.kind === "shuffle") return "each lane reads another lane's register";
  if (event.kind === "barrier") {
    const left = event.bytes ? `, ${number(event.bytes)} bytes to come` : "";
    return `${event.name}: ${number(event.arrived)} of ${number(event.expected)} threads have come${left}${event.complete ? ", complete" : ""}`;
  }
  const buffer = buffers[event.b], lanes = new Set(lanesOf(event)).size, many = unpacked(event.a).length * event.w;
  const text = `${lanes} lane${lanes > 1 ? "s" : ""} ${lanes > 1 ? { reads: "read", writes: "write", updates: "update" }[VERB[event.how]] : VERB[event.how]} ${number(many)} bytes of ${buffer.name}`;
  if (event.sec) return `${text}: ${event.sec} sector${event.sec > 1 ? "s" : ""} of 32 bytes ${event.sec > 1 ? "move" : "moves"}, ${event.need} would do` + (event.turns ? `; ${event.turns} turns more, for one address` : "");
  return buffer.space === "shared" ? `${text}: ${event.pass ? `${1 + event.pass} passes over the banks where 1 would do` : "no bank conflict"}` : text;
}

function eventCard(event, launch) {
  if (event.kind === "shuffle") return shuffleCard(event);
  if (event.kind === "barrier") return barrierCard(event, launch);
  const buffer = launch.buffers[event.b];
  const bad = event.sec ? event.need / event.sec < 0.6 : event.pass > 0;
  const title = el("h3", { class: bad ? "bad" : "good" }, `${bad ? "✕" : "●"} ${VERB[event.how]} ${buffer.name}`,
    el("span", { class: "dim" }, ` ${buffer.space}, ${event.w} bytes a lane` + (buffer.sizes.length ? `, ${buffer.sizes.join(" × ")} ${buffer.dtype}` : "")));
  const drawn = event.sec ? sectorGrid(event, buffer) : buffer.space === "shared" ? bankGrid(event, buffer) : null;
  return el("div", { class: "card" }, title, el("div", { class: "kwide" }, drawn));
}

// Sectors of 32 bytes, side by side: bytes in the colour of the lane that touches them; pale: moved for no lane.
function sectorGrid(event, buffer) {
  const at = unpacked(event.a), lanes = lanesOf(event), item = Math.min(buffer.item, event.w, 16) || 1, per = 32 / item;
  const touched = new Map();
  at.forEach((byte, i) => { for (let b = 0; b < event.w; b += item) touched.set(byte + b, lanes[i]); });
  const sectors = [...new Set([...touched.keys()].map((byte) => Math.floor((byte + buffer.start) / 32)))].sort((a, b) => a - b);
  const shown = sectors.slice(0, MOST_SECTORS), cell = per > 8 ? 8 : 14, W = per * cell, columns = Math.max(1, Math.floor(560 / (W + 62)));
  const H = 20, height = Math.ceil(shown.length / columns) * H;
  const picture = svg("svg", { class: "ksectors", width: columns * (W + 62), height, role: "img",
    "aria-label": `${sectors.length} sectors of 32 bytes; ${touched.size} of ${sectors.length * per} elements are asked for` });
  shown.forEach((sector, n) => {
    const x = (n % columns) * (W + 62), y = Math.floor(n / columns) * H, first = sector * 32 - buffer.start;
    append(picture, [svg("text", { x: x + 52, y: y + 13, "text-anchor": "end", class: "ktiny" }, `[${Math.floor(first / buffer.item)}]`)]);
    for (let i = 0; i < per; i++) {
      const byte = first + i * item, lane = touched.get(byte);
      append(picture, [svg("rect", { x: x + 56 + i * cell, y: y + 2, width: cell - 1, height: H - 6, fill: lane === undefined ? "var(--soft)" : laneColour(lane).background,
        stroke: lane === undefined ? "var(--line)" : "none" },
        svg("title", {}, lane === undefined ? `${element(buffer, byte)}: moved, and no lane asks for it` : `${element(buffer, byte)}: lane ${lane}`))]);
    }
    append(picture, [svg("rect", { x: x + 55, y: y + 1, width: W + 1, height: H - 4, fill: "none", stroke: "var(--dim)" })]);
  });
  return [picture, sectors.length > shown.length ? el("p", { class: "dim" }, `${sectors.length - shown.length} sectors more`) : null, wherein(event, buffer)];
}

// Where in the whole buffer: a bar from its first to its last byte.
function wherein(event, buffer) {
  if (!buffer.nbytes) return null;
  const at = unpacked(event.a), low = Math.min(...at), high = Math.max(...at) + event.w, W = 540;
  return svg("svg", { width: W, height: 10, role: "img", "aria-label": `bytes ${low} to ${high} of ${buffer.nbytes}` },
    svg("rect", { x: 0, y: 3, width: W, height: 4, fill: "var(--soft)", stroke: "var(--line)" }),
    svg("rect", { x: (low / buffer.nbytes) * W, y: 1, width: Math.max(2, ((high - low) / buffer.nbytes) * W), height: 8, fill: "var(--accent)" }));
}

// Shared memory: a column a bank of 4 bytes, a row 128 bytes; above, the words that are asked of each bank.
function bankGrid(event, buffer) {
  const at = unpacked(event.a), lanes = lanesOf(event), cell = 17, H = 13, top = 40;
  const words = new Map(), banks = Array.from({ length: 32 }, () => new Set());
  at.forEach((byte, i) => {
    for (let b = 0; b < Math.max(4, event.w); b += 4) {
      const word = Math.floor((byte + buffer.start + b) / 4);
      banks[word % 32].add(word);
      words.set(word, [...(words.get(word) || []), lanes[i]]);
    }
  });
  const rows = [...new Set([...words.keys()].map((word) => Math.floor(word / 32)))].sort((a, b) => a - b);
  const shown = rows.slice(0, MOST_ROWS_OF_BANKS), worst = Math.max(1, ...banks.map((set) => set.size));
  const picture = svg("svg", { class: "kbanks", width: 32 * cell + 46, height: top + shown.length * H + 2, role: "img",
    "aria-label": `32 banks; the busiest has ${worst} words to give` });
  banks.forEach((set, bank) => append(picture, [
    svg("rect", { x: 44 + bank * cell + 1, y: 26 - (24 * set.size) / worst, width: cell - 2, height: (24 * set.size) / worst, fill: set.size > Math.max(1, event.w / 4) ? "var(--bad)" : "var(--good)" }),
    bank % 4 ? null : svg("text", { x: 44 + bank * cell + cell / 2, y: 37, "text-anchor": "middle", class: "ktiny" }, bank)]));
  append(picture, [svg("text", { x: 0, y: 10, class: "ktiny" }, `${worst} word${worst > 1 ? "s" : ""}`), svg("text", { x: 0, y: 37, class: "ktiny" }, "bank")]);
  shown.forEach((row, n) => {
    const y = top + n * H;
    append(picture, [svg("text", { x: 40, y: y + 10, "text-anchor": "end", class: "ktiny" }, `+${row * 128 - Math.floor(buffer.start / 128) * 128}`),
      svg("rect", { x: 44, y, width: 32 * cell, height: H, fill: "var(--soft)", stroke: "var(--line)" })]);
    for (let bank = 0; bank < 32; bank++) {
      const who = words.get(row * 32 + bank);
      if (who) append(picture, [svg("rect", { x: 44 + bank * cell + 1, y: y + 1, width: cell - 2, height: H - 2, fill: laneColour(who[0]).background },
        svg("title", {}, `${element(buffer, (row * 32 + bank) * 4 - buffer.start)}, bank ${bank}: lane ${who.slice(0, 6).join(", ")}${who.length > 6 ? " …" : ""}`))]);
    }
  });
  return [picture, rows.length > shown.length ? el("p", { class: "dim" }, `${rows.length - shown.length} rows of 128 bytes more`) : null];
}

// A line from the lane that is read to the lane that reads it.
function shuffleCard(event) {
  const from = unpacked(event.from), lanes = lanesIn(event.m === undefined ? FULL : event.m), cell = 18, H = 92;
  const picture = svg("svg", { class: "kshuffle", width: 32 * cell, height: H, role: "img",
    "aria-label": lanes.map((lane, i) => `lane ${lane} reads ${from[i]}`).join(", ") });
  lanes.forEach((lane, i) => append(picture, [svg("line", { x1: from[i] * cell + cell / 2, y1: 18, x2: lane * cell + cell / 2, y2: H - 18,
    stroke: laneColour(from[i]).background, "stroke-width": from[i] === lane ? 1 : 1.8, opacity: from[i] === lane ? 0.45 : 1 })]));
  for (const [y, ones] of [[2, new Set(from)], [H - 18, new Set(lanes)]])
    for (let lane = 0; lane < 32; lane++) {
      const on = ones.has(lane), { background, color } = laneColour(y === 2 ? lane : from[lanes.indexOf(lane)] ?? lane);
      append(picture, [svg("rect", { x: lane * cell + 1, y, width: cell - 2, height: 16, rx: 2, fill: on ? background : "var(--soft)", stroke: on ? "none" : "var(--line)" }),
        svg("text", { x: lane * cell + cell / 2, y: y + 12, "text-anchor": "middle", class: "ktiny", style: { fill: on ? color : "var(--dim)" } }, lane)]);
    }
  return el("div", { class: "card" }, el("h3", {}, "shuffle: above, the lane that is read; below, the lane that reads"), el("div", { class: "kwide" }, picture));
}

function barrierCard(event, launch) {
  const count = Math.ceil(launch.block.reduce((all, n) => all * n, 1) / 32), own = new Set(event.came.filter((one) => !Array.isArray(one)));
  const others = event.came.filter(Array.isArray);
  const waits = { barrier: "a barrier of the thread block", cluster: "a barrier of the cluster", arrive: "arrives at an mbarrier",
    wait: event.complete ? "finds the mbarrier's phase over" : "waits for an mbarrier", copy: "an mbarrier that counts the copy's bytes" }[event.how];
  return el("div", { class: "card" }, el("h3", {}, `${event.name}: ${waits}`),
    el("p", {}, `${number(event.arrived)} of ${number(event.expected)} have come${event.bytes ? `; ${number(event.bytes)} bytes of copies are to come` : ""}${event.complete ? "; it is complete" : ""}`),
    el("div", { class: "row kwarps" }, Array.from({ length: Math.min(count, 32) }, (_, warp) => (own.has(warp) || event.how === "barrier") && badge(own.has(warp) ? "good" : "none", `warp ${warp}`)),
      others.slice(0, 16).map(([block, warp]) => badge("good", `block ${block}, warp ${warp}`))));
}
