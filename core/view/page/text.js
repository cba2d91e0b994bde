// Text: its tokens in the colour of their loss, the likeliest tokens of a place, and the maps of every head.
//
// The place `at` is that of a query: the token there has been read, and the one behind it is expected.

const SHOWN_LOSS = 8;  // nats, from which on the colour is full
let now = null;        // the parts of the view on the screen, which moves change in place

function tint(x) { return `rgb(${between(ink.mid, ink.hot, 0.45 * clamp(x, 1)).join()})`; }
function glow(x) { return `rgb(${between(ink.mid, ink.cold, 0.45 * clamp(x, 1)).join()})`; }

function clear(text) { return text === "" ? "∅" : text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣"); }
function percent(p) { return `${(100 * p).toFixed(p < 0.1 ? 1 : 0)}%`; }
function token(data, at) { return data.tokens.length ? clear(data.tokens[at]) : `token ${at}`; }

// Shares of a row of a map, by place: [[place, share], ...].
function shares(data, row) {
  const pairs = data.sparse ? row[0].map((place, i) => [place, row[1][i]]) : row.map((weight, place) => [place, weight]);
  return pairs.map(([place, weight]) => [place, weight / data.unit]);
}

// Numbers without a form in JSON are texts: those of a model that overflowed.
function readNumbers(data) {
  const read = (x) => (x === "inf" ? Infinity : Number(x));
  for (const step of data.steps) {
    step.losses = step.losses.map(read);
    step.likeliest = step.likeliest.map((row) => row.map(([text, p]) => [text, read(p)]));
  }
}

function chosen(data) {
  const index = Number(page.get("checkpoint") || data.steps.length - 1), step = data.steps[Math.min(index, data.steps.length - 1)];
  const heads = step.maps.flatMap((map) => map.heads.map((rows, head) => ({ map, rows, head, id: `${map.node} ${head}` })));
  const at = clamp(Number(page.get("at") || 0), data.count - 2);
  return { step, index: data.steps.indexOf(step), heads, at, head: heads.find((one) => one.id === page.get("head")) || heads[0] };
}

function named(one) { return keyed(one) ? `${one.map.node}, head ${one.head}` : one.map.node; }
function keyed(one) { return one.map.over === "tokens"; }  // over keys; else over experts
function dense(data, one) {
  return one.rows.map((row) => {
    const line = new Array(one.map.columns).fill(0);
    for (const [place, share] of shares(data, row)) line[place] = share;
    return line;
  });
}

// --- the text ----------------------------------------------------------------------------------------------------------

function textCard(data) {
  const spans = Array.from({ length: data.count }, (_, i) => el("span", { class: "token", on: { click: () => move(data, i) } },
    data.tokens.length ? data.tokens[i].replace(/\n/g, "⏎\n") || "∅" : `${i} `));
  const box = el("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": `Text of ${data.count} tokens; arrows move`,
    on: { keydown(event) {
      if (stepped(event, (down, right) => (down ? checkpoint(data, down) : move(data, now.at + right)))) event.preventDefault();
    } } }, spans);
  const way = el("div", { class: "row", role: "group", "aria-label": "Colours" }, [["loss", "loss of each token"], ["weights", "weights of the head"]].map(
    ([key, name]) => choice(name, (page.get("colours") || "loss") === key, { colours: key === "loss" ? "" : key })));
  return { spans, node: card(data.name, way, box, el("p", { class: "dim" },
    "A line below a token is as thick as its loss is large. The outlined token was read last; the dashed one is expected.")) };
}

function checkpoint(data, by) {
  page.set({ checkpoint: clamp(chosen(data).index + by, data.steps.length - 1) });
  page.redraw().then(() => { const box = document.querySelector(".tokens"); if (box) box.focus(); });
}

function colourTokens(data) {
  const { step, head } = chosen(data), byWeight = page.get("colours") === "weights" && head && keyed(head);
  const weight = byWeight ? new Map(shares(data, head.rows[now.at])) : null;
  now.spans.forEach((span, i) => {
    const loss = i ? step.losses[i - 1] : 0, drawn = Number.isNaN(loss) ? Infinity : loss;
    span.style.setProperty("background-color", weight ? glow(Math.sqrt(weight.get(i) || 0)) : tint(drawn / SHOWN_LOSS));
    span.style.setProperty("border-bottom-width", `${weight ? Math.round(6 * (weight.get(i) || 0)) : Math.min(5, Math.round(drawn / 2))}px`);
    span.title = weight ? percent(weight.get(i) || 0) : i ? `${loss.toFixed(2)} nats` : "the first token: nothing expects it";
    span.classList.toggle("query", i === now.at);
    span.classList.toggle("target", i === now.at + 1);
  });
}

// --- the place -----------------------------------------------------------------------------------------------------------

function placeCard(data) {
  const { step, at } = chosen(data), target = at + 1;
  const rows = step.likeliest[at].map(([text, p]) => [data.tokens.length ? clear(text) : "a token", p, data.tokens.length && text === data.tokens[target]]);
  const bar = (share, good) => el("td", { class: "bar" }, el("div", { class: good ? "cold" : "hot", style: { width: `${100 * (share || 0)}%` } }));
  return el("div", {},
    el("p", {}, "Behind ", el("code", {}, token(data, at)), " came ", el("code", {}, token(data, target)),
      `: loss ${step.losses[at].toFixed(2)}, probability ${percent(Math.exp(-step.losses[at]))}, rank ${step.ranks[at].toLocaleString("en")}`),
    el("table", { class: "bars likeliest" }, el("tbody", {}, rows.map(([text, p, good]) => el("tr", {},
      el("th", { scope: "row" }, el("code", {}, text), good ? " ●" : ""), el("td", { class: "n" }, percent(p)), bar(p, good))))),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "step"), data.steps.map((one, i) => el("th", { scope: "col", class: "n" },
      el("button", { type: "button", "aria-pressed": one === step, on: { click: () => checkpoint(data, i - chosen(data).index) } }, number(one.step)))))),
      el("tbody", {}, [["loss here", (one) => one.losses[at]], ["mean loss", (one) => one.losses.reduce((a, b) => a + b, 0) / one.losses.length]].map(
        ([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), data.steps.map((one) => el("td", { class: "n" }, value(one).toFixed(3))))))));
}

// --- the maps ------------------------------------------------------------------------------------------------------------

function mapsCard(data, side) {
  const { step, heads, head } = chosen(data);
  if (!heads.length) return card("Where the heads look", el("p", { class: "dim" }, step.maps.length || data.steps.some((one) => one.maps.length)
    ? "The maps of this checkpoint were left out." : "No op of this model gives maps."));
  const nodes = [...new Set(heads.map((one) => one.map))];
  const most = Math.max(...nodes.map((map) => map.heads.length));
  const size = Math.max(14, Math.min(nodes.length > 16 ? 26 : 38, Math.floor(520 / most) - 7));
  const small = (one) => {
    const picture = thumbnail(data, one);
    for (const key of ["width", "height"]) picture.style.setProperty(key, `${size}px`);
    return choice(picture, one === head, { head: one.id }, { class: "head", "aria-label": named(one), title: named(one) });
  };
  return card("Where the heads look: a row a node, a picture a head", scrolled("Heads", "heads",
    el("table", {}, el("tbody", {}, nodes.map((map) => el("tr", {}, el("th", { scope: "row" }, map.node),
      el("td", {}, heads.filter((one) => one.map === map).map(small))))))), side);
}

const pictures = new WeakMap();  // rows of a map -> its small picture, drawn once
function thumbnail(data, one) {
  if (!pictures.has(one.rows)) pictures.set(one.rows, cells(dense(data, one), 1));
  return pictures.get(one.rows);
}

function headCard(data) {
  const { head } = chosen(data), wide = head.map.columns, tall = head.rows.length, values = dense(data, head);
  const cell = Math.max(2, Math.min(14, Math.floor(320 / Math.max(wide, tall)))), out = el("output", { class: "read" });
  const column = (j) => (keyed(head) ? `${j} ${token(data, j)}` : `expert ${j}`);
  const picture = cells(values, cell);
  const box = pointed(picture, tall, wide, cell, named(head), (i, j) => {
    out.textContent = `${i} ${token(data, i)} → ${column(j)}: ${percent(values[i][j])}`;
    page.say(out.textContent);
    if (i !== now.at) move(data, i, true);
  });
  append(box, [el("div", { class: "line", style: { height: `${cell}px`, width: `${wide * cell}px` } })]);
  return el("div", {}, el("h3", {}, `${named(head)}: ${head.map.name}, a row a token, a column ${keyed(head) ? "a token that it sees" : "an expert"}`),
    el("div", { class: "beside" }, box, el("div", {}, el("div", { class: "strongest" }), out)));
}

function strongest(data) {
  const { head, at } = chosen(data), place = now.root.querySelector(".strongest");
  if (!head || !place) return;
  const line = now.root.querySelector(".line");
  line.style.setProperty("transform", `translateY(${at * parseInt(line.style.height, 10)}px)`);
  const most = shares(data, head.rows[at]).sort((a, b) => b[1] - a[1]).slice(0, 8).filter(([, share]) => share > 0);
  const bar = (share) => el("td", { class: "bar" }, el("div", { class: "hot", style: { width: `${100 * share}%` } }));
  place.replaceChildren(el("p", {}, el("code", {}, token(data, at)), keyed(head) ? " looks at" : " goes to"),
    el("table", { class: "bars" }, el("tbody", {}, most.map(([j, share]) => el("tr", {}, el("th", { scope: "row" },
      keyed(head) ? [`${j} `, el("code", {}, token(data, j))] : `expert ${j}`), el("td", { class: "n" }, percent(share)), bar(share))))));
}

// --- moving --------------------------------------------------------------------------------------------------------------

// Another place: the text, its card and the line of the head change; the pictures stay.
function move(data, at, quiet) {
  now.at = clamp(at, data.count - 2);
  page.set({ at: now.at || "" });
  colourTokens(data);
  now.place.replaceChildren(placeCard(data));
  strongest(data);
  const { step } = chosen(data);
  if (!quiet) page.say(`${token(data, now.at)}, then ${token(data, now.at + 1)}, loss ${step.losses[now.at].toFixed(2)}`);
}

lens("text", {
  draw(root, data, page) {
    readNumbers(data);
    const { heads, at } = chosen(data), text = textCard(data), place = el("div", {});
    now = { root, spans: text.spans, place, at };
    append(root, [data.notes.map((line) => el("p", { class: "dim left" }, line)), el("div", { class: "halves" },
      el("div", {}, text.node, card("What was expected", place)), mapsCard(data, heads.length ? headCard(data) : null))]);
    move(data, at, true);
  },
  key(event, page) {
    const data = page.current, by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by) move(data, now.at + by);
    else if (down && data.steps.length > 1) checkpoint(data, down);
    return Boolean(by || down);
  },
});
