// Small parts that the sections share.
import { ask } from "./link.js";

export const $ = (selector, root = document) => root.querySelector(selector);
export const still = matchMedia("(prefers-reduced-motion: reduce)");
const SVG = "http://www.w3.org/2000/svg";

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
export const times = ({ width, height }) => `${width}×${height}`;

// A button that begins a job, and stops it while it runs. `status` tells how far it is, or how it ended.
export class Work {
  constructor(button, status, begin) {
    Object.assign(this, { button, status, name: button.textContent, job: null });
    button.addEventListener("click", () => (this.job ? this.stop() : begin()));
  }
  run(fields, tell, payload) {
    this.stop();
    const mine = (this.mine = {});
    this.button.textContent = "Stop";
    this.say("working …");
    const hear = (event, data) => {
      if (mine !== this.mine) return;
      if (event.event === "place") this.say(`waiting: number ${event.place + 1} in line`);
      else if (event.event === "started") this.say("working …");
      else if (event.event === "progress") this.say(`${Math.round(100 * event.share)} %`);
      else if (["done", "stopped", "failed"].includes(event.event)) this.end(event);
      tell(event, data);
    };
    this.job = ask(fields, hear, payload);
    return this.job.id;
  }
  end({ event, seconds, message }) {
    this.job = this.mine = null;
    this.button.textContent = this.name;
    const said = { done: `done in ${number(seconds ?? 0, 1)} s`, failed: message, stopped: "stopped" };
    this.say(said[event], event === "failed");
  }
  stop() {
    if (this.job) this.job.stop();
    if (this.job) this.end({ event: "stopped" });
  }
  say(text, wrong = false) {
    this.status.textContent = text;
    this.status.classList.toggle("wrong", wrong);
  }
}

export function models(select, fitting) {
  for (const { name, title } of fitting) select.append(make("option", { value: name }, title ? `${title} · ${name}` : name));
}
