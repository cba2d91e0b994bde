// Curves: a value of several runs over their steps, spikes as buttons that open the text of their batch.

const LABELS = { loss: "loss", val_loss: "validation loss", norm: "gradient norm",
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
  return el("div", { class: "row choices", role: "group", "aria-label": "Value" },
    data.values.map((value) => choice(LABELS[value] || value, value === now.value, { value })),
    choice("logarithmic", now.log, { log: now.log ? "" : "1" }));
}

function plot() {
  return chart({ title: LABELS[now.value] || now.value, x_name: "step", log: now.log, size: [1100, 340], curves: data.runs.map((run) => {
    const [xs, ys] = run.curves[now.value] || [[], []];
    return { name: run.run, xs, ys, marked: run.spikes.map((spike) => spike.step) };
  }) });
}

function spikes() {
  const score = (z) => (z === null ? "–" : `${z > 0 ? "+" : ""}${z.toFixed(1)}`);
  const rows = data.runs.flatMap((run) => run.spikes.map((spike) => el("tr", {}, el("td", {}, run.run),
    el("td", {}, el("button", { type: "button", on: { click() { page.set({ spike: `${run.run}@${spike.step}` }); drawBatch(run, spike); now.batch.scrollIntoView({ block: "nearest" }); } } }, `step ${number(spike.step)}`)),
    [spike.loss, spike.norm].map((value) => el("td", { class: "n" }, number(value))), [spike.loss_z, spike.norm_z].map((z) => el("td", { class: "n" }, score(z))),
    el("td", {}, spike.skipped ? badge("part", "update left out") : ""))));
  const total = data.runs.map((run) => `${run.run}: ${number(run.spike_count)}`).join(", ");
  if (!rows.length) return card("Spikes", el("p", {}, badge("good", "none, by the limits of [detect]")));
  return card(`Spikes and the step that was named (${total}); a step opens its batch`, scrolled("Spikes", "few",
    el("table", {}, el("thead", {}, el("tr", {}, ["run", "step", "loss", "norm", "loss z", "norm z", "update"].map((name, i) => el("th", { scope: "col", class: i > 1 && i < 6 ? "n" : null }, name)))),
      el("tbody", {}, rows))));
}

function drawBatch(run, spike) {
  const { why, rows, count } = spike.batch, title = `${run.run}, step ${number(spike.step)}: its batch`;
  now.batch.replaceChildren(why ? card(title, el("p", {}, why)) : card(`${title}, ${rows.length} of ${number(count)} sequences`,
    rows.map((text) => el("pre", { class: "sequence" }, text))));
  page.say(title);
}
