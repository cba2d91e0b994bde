// The tour: up to five sentences, each with a state of a view that this page has. Next and Back walk, Escape leaves.
// A view's `example(data)`, where it has one, is a state that shows much.

const LAST = {
  kernel: "Kernel: a launch line by line, with its lanes, the address of each, sectors, banks and barriers; the arrows step.",
  memory: "Memory: each buffer's place over the step, coloured by its role, and who owns the peak; p jumps there.",
};
const tour = {
  at: -1, sentences: [],

  // The sentences as [view, state by its example, text]; none of a view without data.
  list() {
    const last = page.has("kernel") ? "kernel" : "memory";
    return [
      ["step", ({ node }) => ({ node }), "Step: the graph is at the left; the selected node is at the right, with every tensor that it read, wrote and saved."],
      ["step", (example) => example, "Point at a number, by pointer or arrows: the numbers that it is made of light up."],
      ["step", ({ node }) => ({ node, way: "backward" }), "Backward, by the key b: the gradients that this node read, and those that it wrote for the nodes before it."],
      ["text", () => ({}), "Text: the loss of each token, the tokens that the model thought likelier, and where each head looked."],
      [last, () => ({}), LAST[last]],
    ].filter(([name]) => page.has(name));
  },

  async to(at) {
    this.at = at;
    const [name, state, text] = this.sentences[at], own = VIEWS[name];
    const example = own && own.example ? own.example((await block(`data-${name}`)).data) : {};
    await page.go(name, state(example));
    if (this.at !== at) return;
    const end = at === this.sentences.length - 1;
    document.getElementById("tour-text").textContent = `${at + 1} of ${this.sentences.length}. ${text}`;
    document.getElementById("tour-back").disabled = at === 0;
    document.getElementById("tour-next").textContent = end ? "Done" : "Next";
    page.say(text);
  },

  start() {
    this.sentences = this.list();
    document.getElementById("tour").hidden = false;
    document.getElementById("tour-next").focus();
    return this.to(0);
  },

  // Whether there was a tour to leave.
  leave() {
    if (this.at < 0) return false;
    this.at = -1;
    document.getElementById("tour").hidden = true;
    document.getElementById("tour-text").textContent = "";
    document.getElementById("tour-start").focus();
    return true;
  },

  button() {
    return this.list().length > 0 && el("button", { type: "button", id: "tour-start", on: { click: () => this.start() } }, "Tour");
  },

  bar() {
    const button = (id, text, click) => el("button", { type: "button", id, on: { click } }, text);
    return el("section", { id: "tour", "aria-label": "Tour", hidden: true }, el("span", { id: "tour-text" }),
      button("tour-back", "Back", () => this.to(Math.max(0, this.at - 1))),
      button("tour-next", "Next", () => (this.at + 1 < this.sentences.length ? this.to(this.at + 1) : this.leave())),
      button("tour-leave", "Leave (Escape)", () => this.leave()));
  },
};
