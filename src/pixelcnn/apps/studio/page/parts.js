// Small parts that the sections share.
import { ask } from "./link.js";

export const $ = (selector, root = document) => root.querySelector(selector);
export const still = matchMedia("(prefers-reduced-motion: reduce)");
const SVG = "http://www.w3.org/2000/svg", ENDS = ["done", "failed", "stopped"];

export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export const number = (value, digits = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const percent = (share) => `${number(100 * share, 1)}%`;
export const times = ({ width, height, channels }) => `${width}×${height}${channels === 1 ? " gray" : ""}`;

// Put a finished picture on a canvas.
export function copy(picture, canvas) {
  Object.assign(canvas, { width: picture.width, height: picture.height }).getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// A button that begins a job, and stops it while it runs. `status` tells how far it is, and how it ended.
export class Work {
  constructor(button, status, begin) {
    Object.assign(this, { button, status, begin, name: button.textContent, job: null });
    this.bar = make("progress", { hidden: true, max: 1, "aria-label": `${this.name}: progress` });
    status.after(this.bar);
    button.addEventListener("click", () => (this.job ? this.stop() : begin()));
  }
  // `tell(event, payload, id)` is called with each event.
  run(fields, tell, payload) {
    this.stop();
    const mine = (this.mine = {});
    this.button.textContent = "Stop";
    this.say("working …");
    const hear = (event, data) => {
      if (mine !== this.mine) return;
      if (event.event === "place") this.say(`waiting: number ${event.place + 1} in line`);
      else if (event.event === "started") this.say("working …");
      else if (event.event === "progress") this.show(event.share);
      else if (ENDS.includes(event.event)) this.end(event);
      tell(event, data, job.id);
    };
    const job = (this.job = ask(fields, hear, payload));
  }
  end({ event, seconds, message }) {
    this.job = this.mine = null;
    this.button.textContent = this.name;
    this.show(null);
    this.say({ done: `done in ${number(seconds ?? 0, 1)} s`, failed: message, stopped: "stopped" }[event], event === "failed");
  }
  stop() {
    this.job?.stop();
    if (this.job) this.end({ event: "stopped" });
  }
  show(share) {
    this.bar.hidden = share === null;
    this.bar.value = share ?? 0;
  }
  say(text, wrong = false) {
    this.status.textContent = text;
    this.status.classList.toggle("wrong", wrong);
  }
}

export function models(select, fitting) {
  for (const { name, title } of fitting) select.append(make("option", { value: name }, title ? `${name} · ${title}` : name));
}
