// Launches of kernels, a source line at a time: 32 lanes, the bytes that each touches, sectors, banks, shuffles, barriers.
//
// State in the address: of pane 1 and 2 `k1`, `k2` (launch), `w1`, `w2` (the warp's place in the data), `s1`, `s2` (step),
// and `pane`, the one that keys move. Keys: arrows a step or a warp, n and p the next and the previous access, Home, End,
// x the other pane, g the next access of strict mode's error.

const FULL = 0xFFFFFFFF;
const ROLES = { read: "--role0", write: "--role1", atomic: "--role1", shared: "--role3", shuffle: "--role2", barrier: "--accent" };
const LEGEND = [["reads", "--role0"], ["writes", "--role1"], ["shared memory", "--role3"], ["shuffle", "--role2"], ["barrier", "--accent"]];
let panes = [];

lens("kernel", {
  keys: [["n p", "the next and the previous access"], ["Home End", "first and last step"], ["x", "the other pane"], ["g", "an error's accesses"]],
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
