// The arena: a rectangle a tensor, time to the right, addresses upwards; below it the bytes in use by role.

const ROLES = ["saved", "activation", "gradient", "temporary", "workspace"];
const MEANS = { saved: "kept for backward", activation: "read soon after", gradient: "of activations",
  temporary: "added, then gone", workspace: "scratch of one step" };
const WIDE = 880, TALL = 380, LOW = 84, LEFT = 58;
let shown = null;  // the view: { data, step, chosen, rects, rules, side, read }

function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${unit === "B" ? n : n.toFixed(n < 10 ? 2 : 1)} ${unit}`;
    n /= 1024;
  }
  return "";
}

const count = (data) => data.steps.length + 1;
const px = (data, step) => LEFT + (step / count(data)) * (WIDE - LEFT - 4);
const py = (data, place) => TALL - 18 - (place / Math.max(1, data.arena)) * (TALL - 26);
const alive = (data, step) => data.buffers.filter((one) => one.first <= step && step <= one.last);
const hue = (name) => role(Math.max(0, ROLES.indexOf(name)));

function stepName(data, step) {
  const one = data.steps[step];
  return one ? [one.kind, one.node].filter(Boolean).join(" ") : "after the last step";
}

function sums(data, step) {
  const by = new Map(ROLES.map((name) => [name, 0]));
  for (const one of alive(data, step)) by.set(one.role, (by.get(one.role) || 0) + one.bytes);
  return by;
}

// --- pictures ----------------------------------------------------------------------------------------------------------

function arena(data) {
  const rects = data.buffers.map((one) => {
    const x = px(data, one.first), width = px(data, one.last + 1) - x, y = py(data, one.offset + one.bytes), height = py(data, one.offset) - y;
    const label = width > 6.5 * one.name.length + 8 && height > 12
      ? svg("text", { x: x + 4, y: y + height / 2 + 4, class: "name" }, one.name) : null;
    return [svg("rect", { x, y, width: Math.max(1, width - 0.5), height: height > 4 ? height - 0.5 : Math.max(0.6, height), fill: hue(one.role) }), label];
  });
  const scale = [0, 0.5, 1].map((share) => svg("text", { x: LEFT - 5, y: py(data, share * data.arena) + 4, "text-anchor": "end" }, bytes(share * data.arena)));
  const back = px(data, data.backward);
  const turn = data.backward < data.steps.length && [svg("line", { x1: back, x2: back, y1: 0, y2: TALL - 14, class: "turn" }),
    svg("text", { x: back - 5, y: TALL - 3, "text-anchor": "end" }, "forward"), svg("text", { x: back + 5, y: TALL - 3 }, "backward")];
  const rule = svg("rect", { y: 0, height: TALL - 16, width: px(data, 1) - px(data, 0), class: "rule" });
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, class: "arena", "aria-hidden": "true" }, scale, rects, turn, rule);
  return { picture, rects: rects.map(([rect]) => rect), rule };
}

function inUse(data) {
  const top = Math.max(1, ...data.levels), py2 = (n) => LOW - 2 - (n / top) * (LOW - 12);
  const columns = data.levels.map((_, step) => {
    let base = 0;
    return [...sums(data, step)].filter(([, n]) => n).map(([name, n]) => {
      const y = py2(base + n), height = py2(base) - y;
      base += n;
      return svg("rect", { x: px(data, step), y, width: px(data, 1) - px(data, 0), height, fill: hue(name) });
    });
  });
  const peak = px(data, data.peak + 0.5);
  const rule = svg("rect", { y: 0, height: LOW, width: px(data, 1) - px(data, 0), class: "rule" });
  return { rule, picture: svg("svg", { viewBox: `0 0 ${WIDE} ${LOW}`, class: "arena", "aria-hidden": "true" }, columns,
    svg("text", { x: LEFT - 5, y: 16, "text-anchor": "end" }, bytes(top)), svg("text", { x: LEFT - 5, y: LOW - 3, "text-anchor": "end" }, "0"),
    svg("text", { x: peak, y: 9, "text-anchor": "middle" }, "peak"), rule) };
}

// --- the step in front ---------------------------------------------------------------------------------------------------

// The tensors that are alive at a step, repeats of one kind as one row: as `owners` of the plan, at any step.
function ownersAt(data, step) {
  const groups = new Map();
  for (const one of alive(data, step)) {
    const key = [one.group, one.role, one.shape, one.dtype].join(" ");
    if (!groups.has(key)) groups.set(key, { role: one.role, bytes: 0, members: [] });
    const group = groups.get(key);
    group.bytes += one.bytes;
    group.members.push(one);
    group.name = group.members.length > 1 ? `${one.group} × ${group.members.length}` : one.name;
  }
  return [...groups.values()].sort((a, b) => b.bytes - a.bytes);
}

function sideOf(data) {
  const { step, chosen } = shown, used = data.levels[step], by = sums(data, step);
  const node = data.steps[step] && data.steps[step].node;
  const owners = ownersAt(data, step);
  return [el("h2", {}, `Step ${step} of ${data.steps.length}: ${stepName(data, step)}`),
    el("p", { class: "big" }, bytes(used), el("span", { class: "dim" }, ` in use of an arena of ${bytes(data.arena)}`)),
    el("div", { class: "row" }, el("button", { type: "button", "aria-pressed": step === data.peak, on: { click: () => move(data.peak) } }, "the peak (p)"),
      node ? jump("step", { node }, `${node} in Step`) : null),
    el("table", { class: "bars roles" }, el("tbody", {}, [...by].map(([name, n]) => el("tr", { class: n ? null : "dim" },
      el("th", { scope: "row" }, el("i", { class: "swatch", style: { background: hue(name) } }), name), el("td", { class: "dim" }, MEANS[name] || ""),
      el("td", { class: "n" }, bytes(n)), el("td", { class: "n" }, used ? `${((100 * n) / used).toFixed(1)}%` : "")))) ),
    el("h3", {}, "Its owners, the largest first"),
    scrolled("Owners", "owners", el("table", {}, el("tbody", {}, owners.map((one) =>
      el("tr", { class: one.members.includes(chosen) ? "chosen" : null }, el("td", {}, el("i", { class: "swatch", style: { background: hue(one.role) } }), one.name),
        el("td", {}, one.role), el("td", { class: "n" }, bytes(one.bytes)), el("td", { class: "n" }, `${((100 * one.bytes) / used).toFixed(1)}%`)))))) ];
}

function words(data, one) {
  return `${one.name}: ${bytes(one.bytes)}, ${one.role}, ${one.shape.join("x")} ${one.dtype}; made by ${one.node || "no node"} in step ${one.first}, ` +
    `${one.last >= data.steps.length ? "kept to the end" : `last read in step ${one.last}`}`;
}

function move(step, chosen) {
  const { data } = shown;
  shown.step = clamp(step, count(data) - 1);
  shown.chosen = chosen && chosen.first <= shown.step && shown.step <= chosen.last ? chosen : null;
  page.set({ at: shown.step, node: null });
  for (const rule of shown.rules) rule.setAttribute("x", px(data, shown.step));
  data.buffers.forEach((one, i) => shown.rects[i].setAttribute("class", one === shown.chosen ? "chosen" : ""));
  shown.side.replaceChildren(...sideOf(data));
  const text = shown.chosen ? words(data, shown.chosen) : `${stepName(data, shown.step)}: ${bytes(data.levels[shown.step])} in use`;
  shown.read.textContent = text;
  page.say(text);
}

function under(event, picture, tall) {
  const { data } = shown, box = picture.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * WIDE, y = ((event.clientY - box.top) / box.height) * tall;
  const step = Math.floor(((x - LEFT) / (WIDE - LEFT - 4)) * count(data));
  const place = ((TALL - 18 - y) / (TALL - 26)) * data.arena;
  return [step, tall === TALL ? alive(data, step).find((one) => one.offset <= place && place < one.offset + one.bytes) : null];
}

// The next tensor above or below the chosen one, among those that are alive at the step.
function beside(way) {
  const { data, step, chosen } = shown, all = alive(data, step).sort((a, b) => a.offset - b.offset);
  const at = all.indexOf(chosen);
  return all[at < 0 ? (way > 0 ? 0 : all.length - 1) : clamp(at + way, all.length - 1)];
}

function pointable(picture, tall, name) {
  return el("div", { class: "pointed", tabindex: 0, role: "group", "aria-label": name, on: {
    pointermove(event) {
      const [step, one] = under(event, picture, tall);
      if (step < 0 || step >= count(shown.data)) return;
      shown.read.textContent = one ? words(shown.data, one) : `${stepName(shown.data, step)}: ${bytes(shown.data.levels[step])} in use`;
    },
    click(event) { const [step, one] = under(event, picture, tall); if (step >= 0 && step < count(shown.data)) move(step, one); },
  } }, picture);
}

lens("memory", {
  keys: [["p", "the peak"]],
  draw(root, data, page) {
    const map = arena(data), used = inUse(data), side = el("div", { class: "card side" }), read = el("output", { class: "read" });
    const at = page.get("at"), own = data.buffers.find((one) => one.node === page.get("node"));
    shown = { data, step: data.peak, chosen: null, rects: map.rects, rules: [map.rule, used.rule], side, read };
    const legend = ROLES.filter((name) => data.buffers.some((one) => one.role === name)).map((name) =>
      el("span", { class: "legend" }, el("i", { class: "swatch", style: { background: hue(name) } }), `${name}, ${MEANS[name]}`));
    const parts = Object.entries(data.parts).filter(([name, n]) => n && !["saved", "workspace"].includes(name));
    append(root, [el("p", { class: "dim facts" }, parts.map(([name, n]) => `${name === "activations" ? "this arena" : name} ${bytes(n)}`).join(" · "), ` · on ${data.device}`),
      el("div", { class: "panes" }, el("div", {}, card("Place against time: a rectangle a tensor", el("div", {}, legend),
        pointable(map.picture, TALL, "The arena. Arrows left and right choose a step, up and down a tensor"), read),
        card("Bytes in use, by role", pointable(used.picture, LOW, "Bytes in use by step. Arrows choose a step"))), side)]);
    if (at === undefined && own) move(own.first, own);
    else move(at === undefined ? data.peak : Number(at) || 0);
  },
  key(event) {
    const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key], up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (along) move(shown.step + along * (event.shiftKey ? 10 : 1), shown.chosen);
    else if (up) move(shown.step, beside(up));
    else if (event.key === "p") move(shown.data.peak, shown.chosen);
    return Boolean(along || up || event.key === "p");
  },
});
