// Runs of training beside each other: curves of bits, the newest sheet, and what is left.
import { ask } from "./link.js";
import { $, make, number, shape } from "./parts.js";

const WIDTH = 320, HEIGHT = 160, pictures = new Map(); // sheets by their addresses, so that they are fetched once

export function training(root) {
  ask({ do: "watch" }, ({ event, runs }) => event === "runs" && $(".runs", root).replaceChildren(...runs.map(run)));
}

function run({ name, factors }, i) {
  const curves = factors.filter(({ points }) => points.length > 1);
  const drawn = curves.length ? chart(name, curves) : make("p", {}, "No values yet: the first appear after a few seconds.");
  return make("article", {}, make("h3", {}, name), drawn, ...factors.map((factor) => state(factor, i)));
}

function chart(name, factors) {
  const points = factors.flatMap((factor) => factor.points);
  const [long, high] = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
  const place = ([minutes, bits]) => `${((minutes / long) * WIDTH).toFixed(1)},${(HEIGHT * (1 - bits / high)).toFixed(1)}`;
  const lines = [0, 0.5, 1].map((share) => shape("line", { class: "grid", x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT }));
  const curves = factors.map(({ k, points }) => shape("polyline", { class: `line k${k % 6}`, points: points.map(place).join(" ") }));
  const text = `0 to ${number(high, 2)} bits per dimension, over ${number(long, 1)} minutes`;
  const svg = shape("svg", { viewBox: `-2 -2 ${WIDTH + 4} ${HEIGHT + 4}`, role: "img", "aria-label": `${name}: ${text}` }, ...lines, ...curves);
  return make("figure", { class: "chart" }, svg, make("figcaption", {}, text));
}

function state({ k, points, step, minutes, share, left, sheet }, i) {
  const bits = points.length ? `, ${number(points.at(-1)[1], 3)} bits` : "";
  const ahead = share === null ? "" : share < 1 ? `, ${number(left, 1)} minutes left` : ", finished";
  const text = `Factor ${k}: step ${number(step)}${bits}, ${number(minutes, 1)} minutes${ahead}`, src = `sheets/${i}/${k}?${sheet}`;
  const parts = [make("p", {}, make("span", { class: `key k${k % 6}` }), text)];
  if (share !== null) parts.push(make("progress", { value: share, max: 1, "aria-label": `Factor ${k}` }));
  if (sheet && !pictures.has(src)) pictures.set(src, make("img", { src, alt: `Newest samples of factor ${k}` }));
  return make("div", { class: "factor" }, ...parts, ...(sheet ? [pictures.get(src)] : []));
}
