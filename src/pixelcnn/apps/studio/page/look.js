// The exact distribution of the pixel that one points at, as a small curve for each channel.
import { ask } from "./link.js";
import { make, number, percent, shape, times } from "./parts.js";

const NAMES = ["red", "green", "blue"], WIDTH = 256, HEIGHT = 64, TICK = 8; // the tick below a curve shows the value

export class Look {
  constructor(root) {
    Object.assign(this, { busy: false, next: null });
    this.title = make("p", { class: "title", "aria-live": "polite" });
    this.curves = make("div", { class: "curves" });
    root.replaceChildren(this.title, this.curves, make("p", { class: "soft" }, root.textContent.trim()));
  }
  clear(text = "") {
    this.next = null;
    this.title.textContent = text;
    this.curves.replaceChildren();
  }
  // Ask about a pixel of the result of job `of`; while one answer is awaited, only the newest question is kept.
  at(of, view, question) {
    this.next = [of, view, question];
    if (!this.busy) this.go();
  }
  go() {
    if (!this.next) return;
    const [of, view, question] = this.next;
    [this.next, this.busy] = [null, true];
    ask({ do: "pixel", of, ...question }, (event, payload) => {
      if (event.event === "pixel") return this.show(view, question, event, new Float32Array(payload));
      if (event.event === "failed" && !this.next) this.clear(event.message);
      if (!["done", "failed", "stopped"].includes(event.event)) return;
      this.busy = false;
      this.go();
    });
  }
  show(view, { row, col }, { values, lowest, highest, bits }, pmf) {
    this.title.textContent = `Row ${row}, column ${col} of ${times(view)}: ${number(bits, 2)} bits`;
    const figures = values.map((value, c) => {
      const name = values.length > 1 ? NAMES[c] : "gray", mass = pmf.subarray(c * view.levels, (c + 1) * view.levels);
      const chance = mass[value] >= 0.0005 ? percent(mass[value]) : "under 0.05%";
      const text = `${name} ${value}: ${chance}; possible: ${lowest[c]} to ${highest[c]}`;
      return make("figure", { class: name }, curve(mass, value, lowest[c], highest[c]), make("figcaption", {}, text));
    });
    this.curves.replaceChildren(...figures);
  }
}

function curve(mass, value, lowest, highest) {
  const most = Math.max(...mass), step = WIDTH / mass.length;
  const x = (level) => (level * step).toFixed(1), y = (share) => (HEIGHT - (share / most) * (HEIGHT - 4)).toFixed(1);
  let path = `M0 ${HEIGHT}`;
  mass.forEach((share, level) => (path += `L${x(level)} ${y(share)}H${x(level + 1)}`));
  const out = (from, to) => shape("rect", { class: "out", x: x(from), y: 0, width: x(to - from), height: HEIGHT });
  return shape(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT + TICK}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    out(0, lowest),
    out(highest + 1, mass.length),
    shape("path", { class: "mass", d: `${path}V${HEIGHT}Z` }),
    shape("rect", { class: "base", x: 0, y: HEIGHT, width: WIDTH, height: 1 }),
    shape("rect", { class: "value", x: x(value), y: HEIGHT, width: Math.max(step, 1.5), height: TICK }),
  );
}
