// Drawing: an image grows view by view; a filmstrip keeps the links of earlier ones.
import { Board } from "./board.js";
import { Look } from "./look.js";
import { $, Work, copy, make, models, number } from "./parts.js";

const KEPT = 24, SEEDS = 2 ** 31, NUMBERS = ["seed", "shift", "size", "label"];

export function drawing(root, facts) {
  const form = $("form", root), fields = form.elements, look = new Look($(".look", root));
  let of = 0;
  const point = (image, k, row, col) => look.at(of, board.views[k], { image, k, row, col });
  const board = new Board($(".stage", root), "The drawing", point), work = new Work(fields.go, $(".status", root), () => go());

  // Set what depends on the model.
  function fit() {
    const { size, classes } = facts.models.find(({ name }) => name === fields.model.value);
    fields.size.value = size[0];
    fields.label.max = Math.max(0, classes - 1);
    fields.label.disabled = fields.label.closest("label").hidden = !classes;
  }
  // Set the controls as a link says, and draw.
  function follow(link) {
    const asked = new URLSearchParams(link.split("?")[1]), model = asked.get("model");
    if (!facts.models.some(({ name }) => name === model)) return work.say(`this studio has no model ${model}`, true);
    fields.model.value = model;
    fit();
    for (const name of NUMBERS) if (asked.has(name)) fields[name].value = asked.get(name);
    fields.map.checked = asked.has("map");
    tell();
    go();
  }
  const tell = () => ($("output", form).textContent = number(Number(fields.shift.value), 1));
  function go(remember = true) {
    if (!form.reportValidity()) return;
    const link = `#draw?${new URLSearchParams(new FormData(form))}`;
    const numbers = NUMBERS.filter((name) => !fields[name].disabled).map((name) => [name, Number(fields[name].value)]);
    const asked = { do: "draw", model: fields.model.value, map: fields.map.checked, ...Object.fromEntries(numbers) };
    if (remember) history.replaceState(null, "", link);
    work.run(asked, (event, payload, id) => {
      board.hear(event, payload);
      if (event.event === "begun") [of] = [id, look.clear()];
      if (event.event === "done") keep(link, `Draw seed ${asked.seed} again`);
    });
  }
  function another() {
    fields.seed.value = (Number(fields.seed.value) + 1) % SEEDS;
    go();
  }
  function keep(link, label) {
    const strip = $(".strip", root), again = (event) => (event.preventDefault(), follow(link));
    for (const old of [...strip.children]) if (old.getAttribute("href") === link) old.remove();
    strip.prepend(make("a", { href: link, title: label, "aria-label": label, onclick: again }, copy(board.data[0][0], make("canvas"))));
    for (const old of [...strip.children].slice(KEPT)) old.remove();
  }

  models(fields.model, facts.models);
  fields.model.addEventListener("change", () => (fit(), go()));
  fields.shift.addEventListener("input", tell);
  fields.another.addEventListener("click", another);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("keydown", ({ key, target }) => key === "Enter" && target.matches("input") && go());
  addEventListener("hashchange", () => location.hash.startsWith("#draw?") && follow(location.hash));
  fit();
  tell();
  if (location.hash.startsWith("#draw?")) follow(location.hash);
  else go(false);
}
