// Curves: a value of several runs over their steps, spikes as buttons that open the text of their batch.

const W = 1100, H = 340, LEFT = 70, BOTTOM = 26, LABELS = { loss: "loss", val_loss: "validation loss", norm: "gradient norm",
  lr: "learning rate", tokens_per_s: "tokens a second", ms: "ms a step", mfu: "MFU", memory: "memory in bytes" };
let data, now;

lens("curves", {
  draw(root, given, page) {
    data = given;
    const value = data.values.includes(page.get("value")) ? page.get("value") : data.values[0];
    now = { value, log: page.get("log") === "1", batch: el("div", {}) };
    append(root, [choices(), plot(), spikes(), now.batch, data.runs.flatMap((run) => run.left_out.map((text) => el("p", { class: "dim" }, `${run.run}: ${text}`)))]);
    const [run, step] = (page.get("spike") || "").split("@");
    const held = data.runs.find((one) => one.run === run);
    const spike = held && held.spikes.find((one) => String(one.step) === step);
    if (spike) drawBatch(held, spike);
  },
});

function choices() {
  const press = (on, text, change) => el("button", { type: "button", "aria-pressed": String(on), on: { click() { page.set(change); page.redraw(); } } }, text);
  return el("div", { class: "row choices", role: "group", "aria-label": "Value" },
    data.values.map((value) => press(value === now.value, LABELS[value] || value, { value })),
    press(now.log, "logarithmic", { log: now.log ? "" : "1" }));
}

function plot() {
  const scale = now.log ? (y) => (y > 0 ? Math.log10(y) : null) : (y) => y;
  const curves = data.runs.map((run, n) => ({ run, n, points: run.curves[now.value] || [[], []] })).map((one) => ({ ...one, ys: one.points[1].map(scale) }));
  const ys = curves.flatMap((one) => one.ys).filter((y) => y !== null), xs = curves.flatMap((one) => one.points[0]);
  if (!ys.length) return card(LABELS[now.value] || now.value, el("p", { class: "dim" }, "no positive numbers"));
  const span = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [low, high] = span(ys), [first, last] = span(xs);
  const px = (x) => LEFT + ((x - first) / (last - first || 1)) * (W - LEFT - 14), py = (y) => 10 + ((high - y) / (high - low || 1)) * (H - BOTTOM - 10);
  const back = (y) => (now.log ? 10 ** y : y);
  const marksOf = (one) => one.run.spikes.map((spike) => {
    const at = one.points[0].indexOf(spike.step), y = at < 0 ? null : one.ys[at];
    return y === null ? null : svg("circle", { cx: px(spike.step), cy: py(y), r: 4, fill: "none", stroke: role(one.n), "stroke-width": 2 });
  });
  const rule = svg("line", { y1: 8, y2: H - BOTTOM, stroke: "var(--dim)", visibility: "hidden" });
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "plot", "aria-hidden": "true" },
    [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low)).map((y) => [svg("line", { x1: LEFT, x2: W - 14, y1: py(y), y2: py(y), stroke: "var(--line)" }),
      svg("text", { x: LEFT - 6, y: py(y) + 4, "text-anchor": "end" }, number(back(y)))]),
    [first, last].map((x, i) => svg("text", { x: px(x), y: H - 6, "text-anchor": i ? "end" : "start" }, `${i ? "" : "step "}${number(x)}`)),
    curves.map((one) => svg("path", { fill: "none", stroke: role(one.n), "stroke-width": 1.6, "stroke-dasharray": DASHES[one.n % DASHES.length],
      d: path(one.points[0], one.ys, px, py) })),
    curves.filter((one) => one.ys.length === 1 && one.ys[0] !== null).map((one) => svg("circle", { cx: px(one.points[0][0]), cy: py(one.ys[0]), r: 3, fill: role(one.n) })),
    curves.map(marksOf), rule);
  const out = el("output", { class: "read" }, curves.map((one) => legend(one.n, one.run.run)));
  let at = last;
  const move = (x) => {
    at = Math.max(first, Math.min(last, x));
    for (const key of ["x1", "x2"]) rule.setAttribute(key, px(at));
    rule.setAttribute("visibility", "visible");
    out.replaceChildren(`step ${number(Math.round(at))}: `, ...curves.filter((one) => one.points[0].length).map((one) => {
      const i = nearest(one.points[0], at);
      return legend(one.n, `${one.run.run} ${number(one.points[1][i])}`);
    }));
    page.say(out.textContent);
  };
  return card(LABELS[now.value] || now.value, el("div", { class: "pointed", tabindex: 0, role: "group", "aria-label": `${LABELS[now.value] || now.value} over steps`, on: {
    pointermove(event) {
      const box = picture.getBoundingClientRect();
      move(first + ((((event.clientX - box.left) / box.width) * W - LEFT) / (W - LEFT - 14)) * (last - first));
    },
    keydown(event) { if (stepped(event, (_, right) => move(at + right * (event.shiftKey ? 10 : 1) * Math.max(1, Math.round((last - first) / 200))))) event.preventDefault(); },
  } }, picture), out);
}

function spikes() {
  const score = (z) => (z === null ? "–" : `${z > 0 ? "+" : ""}${z.toFixed(1)}`);
  const rows = data.runs.flatMap((run) => run.spikes.map((spike) => el("tr", {}, el("td", {}, run.run),
    el("td", {}, el("button", { type: "button", on: { click() { page.set({ spike: `${run.run}@${spike.step}` }); drawBatch(run, spike); now.batch.scrollIntoView({ block: "nearest" }); } } }, `step ${number(spike.step)}`)),
    [spike.loss, spike.norm].map((value) => el("td", { class: "n" }, number(value))), [spike.loss_z, spike.norm_z].map((z) => el("td", { class: "n" }, score(z))),
    el("td", {}, spike.skipped ? badge("part", "update left out") : ""))));
  const total = data.runs.map((run) => `${run.run}: ${number(run.spike_count)}`).join(", ");
  if (!rows.length) return card("Spikes", el("p", {}, badge("good", "none, by the limits of [detect]")));
  return card(`Spikes and the step that was named (${total}); a step opens its batch`, el("div", { class: "scroll few", tabindex: 0, role: "group", "aria-label": "Spikes" },
    el("table", {}, el("thead", {}, el("tr", {}, ["run", "step", "loss", "norm", "loss z", "norm z", "update"].map((name, i) => el("th", { scope: "col", class: i > 1 && i < 6 ? "n" : null }, name)))),
      el("tbody", {}, rows))));
}

function drawBatch(run, spike) {
  const { why, rows, count } = spike.batch, title = `${run.run}, step ${number(spike.step)}: its batch`;
  now.batch.replaceChildren(why ? card(title, el("p", {}, why)) : card(`${title}, ${rows.length} of ${number(count)} sequences`,
    rows.map((text) => el("pre", { class: "sequence" }, text))));
  page.say(title);
}
