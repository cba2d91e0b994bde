// The events of a step, in words and as cards: accesses with their sectors or banks, shuffles, barriers.
//
// `kernel.js` has the lanes of an event, their colours, and the pane that shows the cards.

const MOST_SECTORS = 48, MOST_ROWS_OF_BANKS = 36;
const VERB = { read: "reads", write: "writes", atomic: "updates" };

// "x[3, 17]" of a byte in a buffer.
function element(buffer, byte) {
  let flat = Math.floor(byte / buffer.item);
  const places = [];
  for (const size of buffer.sizes.slice(1).reverse()) { places.unshift(flat % size); flat = Math.floor(flat / size); }
  return `${buffer.name}[${[flat, ...places].join(", ")}]`;
}

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
