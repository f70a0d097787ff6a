// Drawing: an image grows view by view; a filmstrip keeps the links of earlier ones.
import { Board } from "./board.js";
import { Look } from "./look.js";
import { $, Work, make, models, number } from "./parts.js";

const KEPT = 24, SEEDS = 2 ** 31;

export function drawing(root, facts) {
  const form = $("form", root), fields = form.elements, look = new Look($(".look", root));
  let of = 0;
  const board = new Board($(".stage", root), "The drawing", (image, k, row, col) => look.at(of, board.views[k], { image, k, row, col }));
  models(fields.model, facts.models);
  const work = new Work($("[name=go]", form), $(".status", root), () => go());

  const chosen = () => facts.models.find(({ name }) => name === fields.model.value);
  function fit() {
    const { size, classes } = chosen();
    fields.size.value = size[0];
    fields.label.max = classes - 1;
    fields.label.closest("label").hidden = !classes;
  }
  function link() {
    const asked = { model: fields.model.value, seed: fields.seed.value, shift: fields.shift.value, size: fields.size.value };
    if (fields.map.checked) asked.map = 1;
    if (chosen().classes) asked.label = fields.label.value;
    return `#draw?${new URLSearchParams(asked)}`;
  }
  // Set the controls as a link says, and draw.
  function follow(hash) {
    const asked = new URLSearchParams(hash.split("?")[1]);
    if (!facts.models.some(({ name }) => name === asked.get("model"))) return work.say(`there is no model ${asked.get("model")}`, true);
    fields.model.value = asked.get("model");
    fit();
    for (const name of ["seed", "shift", "size", "label"]) if (asked.has(name)) fields[name].value = asked.get(name);
    fields.map.checked = asked.get("map") === "1";
    tell();
    go();
  }
  function tell() {
    $("output", form).textContent = number(Number(fields.shift.value), 1);
  }
  function go() {
    if (!form.reportValidity()) return;
    const mine = link(), [seed, size, shift] = ["seed", "size", "shift"].map((name) => Number(fields[name].value));
    const asked = { do: "draw", model: fields.model.value, seed, size, shift, map: fields.map.checked };
    if (chosen().classes) asked.label = Number(fields.label.value);
    history.replaceState(null, "", mine);
    const id = work.run(asked, (event, payload) => {
      board.hear(event, payload);
      if (event.event === "begun") of = id;
      if (event.event === "done") keep(mine, seed);
    });
    if (fields.next.checked) fields.seed.value = (seed + 1) % SEEDS;
  }
  function keep(mine, seed) {
    const strip = $(".strip", root), { width, height } = board.views[0];
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").putImageData(board.data[0][0], 0, 0);
    for (const old of strip.querySelectorAll("a")) if (old.getAttribute("href") === mine) old.remove();
    strip.prepend(make("a", { href: mine, title: `Draw seed ${seed} again`, "aria-label": `Draw seed ${seed} again` }, canvas));
    for (const old of [...strip.children].slice(KEPT)) old.remove();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  fields.model.addEventListener("change", fit);
  fields.shift.addEventListener("input", tell);
  addEventListener("hashchange", () => location.hash.startsWith("#draw?") && follow(location.hash));
  fit();
  tell();
  if (location.hash.startsWith("#draw?")) follow(location.hash);
  else go();
}
