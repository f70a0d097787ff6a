// Runs of training beside each other: curves of bits, the newest sheet, and what is left.
import { ask } from "./link.js";
import { $, make, number, shape } from "./parts.js";

const WIDTH = 320, HEIGHT = 160;

export function training(root) {
  ask({ do: "watch" }, ({ event, runs }) => {
    if (event === "runs") $(".runs", root).replaceChildren(...runs.map(run));
  });
}

function run({ name, factors }, i) {
  const curves = factors.filter(({ points }) => points.length > 1);
  return make("article", {}, make("h3", {}, name), curves.length ? chart(name, curves) : make("p", {}, "No figures yet."), ...factors.map((factor) => state(factor, i)));
}

function chart(name, factors) {
  const points = factors.flatMap((factor) => factor.points);
  const [long, high] = [Math.max(...points.map(([minutes]) => minutes)), Math.max(...points.map(([, bits]) => bits))];
  const x = (minutes) => (minutes / long) * WIDTH, y = (bits) => HEIGHT - (bits / high) * HEIGHT;
  const place = ([minutes, bits]) => `${x(minutes).toFixed(1)},${y(bits).toFixed(1)}`;
  const line = ({ k, points }) => shape("polyline", { class: `line k${k % 6}`, points: points.map(place).join(" ") });
  const label = `Bits per dimension of ${name} over ${number(long, 1)} minutes`;
  const lines = [0, 0.5, 1].map((share) => shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT }));
  return make(
    "figure",
    { class: "chart" },
    shape("svg", { viewBox: `-2 -2 ${WIDTH + 4} ${HEIGHT + 4}`, role: "img", "aria-label": label }, ...lines, ...factors.map(line)),
    make("figcaption", {}, `0 to ${number(high, 2)} bits per dimension, over ${number(long, 1)} minutes`),
  );
}

function state({ k, points, step, minutes, share, left, sheet }, i) {
  const bits = points.length ? `, ${number(points.at(-1)[1], 3)} bits` : "", ahead = share === null ? "" : share < 1 ? `, ${number(left, 1)} minutes left` : ", finished";
  const text = make("p", {}, make("span", { class: `key k${k % 6}` }), `Factor ${k}: step ${number(step)}${bits}, ${number(minutes, 1)} minutes${ahead}`);
  const bar = share === null ? [] : [make("progress", { value: share, max: 1, "aria-label": `Factor ${k}` })];
  const picture = sheet ? [make("img", { src: `sheets/${i}/${k}?${sheet}`, alt: `Newest samples of factor ${k}` })] : [];
  return make("div", { class: "factor" }, text, ...bar, ...picture);
}
