// A picture of one's own: what it costs, what surprises, and what the model makes of it.
import { Board } from "./board.js";
import { File } from "./file.js";
import { Hole } from "./hole.js";
import { chain } from "./idea.js";
import { ask } from "./link.js";
import { Look } from "./look.js";
import { $, Work, make, models, number, times } from "./parts.js";

const CHANGES = ["upscale", "colorize", "complete"];

export function pictures(root, facts) {
  const form = $("form", root), fields = form.elements, look = new Look($(".look", root));
  const colors = Uint8Array.from(facts.colors.match(/../g), (byte) => parseInt(byte, 16));
  const point = (image, k, row, col) => {
    look.at(of, board.views[k], { image, k, row, col });
    if (maps[k]) $(".cost", root).textContent = `${number(maps[k][row * board.views[k].width + col], 2)} bits`;
  };
  const board = new Board($(".stage", root), "The picture", point), surprise = new Board($(".surprise", root), "Its surprisal", point);
  const results = new Board($(".results .stage", root), "Result", (image, k, row, col) => look.at(drawn, results.views[k], { image, k, row, col }));
  const hole = new Hole(board, form), file = new File($("#file"), () => fields.model.value);
  let [of, drawn, photo, maps, bits, sizes] = [0, 0, null, [], [], {}];
  models(fields.model, facts.models.filter((model) => model.pictures));
  if ([...fields.model.options].some(({ value }) => value === "photos-pyramid")) fields.model.value = "photos-pyramid";
  const say = new Work($("[name=again]", form), $(".opening", root), () => score());
  const status = $(".working", root);
  const works = CHANGES.map((name) => new Work(form.elements[name], status, () => change(name)));

  const { bytes, pixels, side } = facts.limits;
  $(".limits", root).textContent =
    `Up to ${number(bytes / 1e6, 1)} MB and ${number(pixels / 1e6, 1)} million pixels; longer sides are averaged down to`;
  fields.side.max = side;
  for (let i = 0; i < facts.photos; i++) {
    const image = make("img", { src: `photos/${i}`, alt: `Photograph ${i + 1}`, width: 128, height: 128 });
    $(".photos", root).append(make("button", { type: "button", onclick: () => open({ do: "photo", photo: i }) }, image));
  }

  function open(fields, content) {
    const tell = (event, payload) => {
      if (event.event === "photo") photo = { ...event, pixels: new Uint8Array(payload) };
      if (event.event === "done") score();
      if (event.event === "failed") say.say(event.message, true);
    };
    for (const work of [say, ...works]) work.stop();
    say.say("reading …");
    ask(fields, tell, content);
  }
  async function take(given) {
    if (!given) return;
    if (given.size > bytes) return say.say(`${given.name} has ${number(given.size / 1e6, 1)} MB: use a smaller one`, true);
    open({ do: "open", name: given.name, side: Number(fields.side.value) }, await given.arrayBuffer());
  }
  function score() {
    if (!photo) return say.say("choose a picture first", true);
    [maps, bits, sizes] = [[], [], {}];
    $(".facts", root).hidden = false;
    file.begin(photo);
    fit();
    const id = say.run({ do: "score", model: fields.model.value }, (event, payload) => {
      board.hear(event, payload);
      if (event.event === "begun") {
        of = id;
        hole.begin();
        surprise.begin(event.views);
      } else if (event.event === "bits") {
        maps[event.k] = new Float32Array(payload);
        bits[event.k] = event.total;
      } else if (event.event === "size") sizes[event.name] = event.bytes;
      else if (event.event === "done") {
        table();
        heat();
        chain($("#idea"), board, bits, model());
      }
    });
    $(".notes", root).textContent = [`${photo.name}, ${times(photo)}, ${photo.channels > 1 ? "color" : "gray"}`, ...photo.notes].join("; ");
  }
  const model = () => facts.models.find(({ name }) => name === fields.model.value);
  // Offer what the model can do.
  function fit() {
    const { upscale, colorize } = model(), able = facts.models.filter((each) => each.colorize).map(({ name }) => name);
    fields.factor.replaceChildren(...upscale.map((factor) => make("option", { value: factor }, `×${factor}`)));
    fields.upscale.disabled = !upscale.length;
    fields.colorize.disabled = !colorize;
    fields.upscale.title = upscale.length ? "" : "This model has no smaller view";
    fields.colorize.title = colorize ? "" : `This model has no gray view: choose ${able.join(" or ") || "a Grayscale model"}`;
  }
  function table() {
    const dims = photo.channels * photo.width * photo.height, total = bits.reduce((sum, each) => sum + each, 0);
    const rows = [...Object.entries(sizes), [fields.model.value, total / 8]].sort((one, other) => other[1] - one[1]);
    const cells = [number, (bytes) => number((8 * bytes) / dims, 3)];
    const row = ([name, bytes]) =>
      make("tr", { class: name === fields.model.value ? "ours" : "" }, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell(bytes))));
    $("tbody.sizes", root).replaceChildren(...rows.map(row));
    $("tbody.parts", root).replaceChildren(...bits.map((each, k) => row([`${times(board.views[k])} view`, each / 8])));
  }
  // Show the bits of each pixel, all views on one scale.
  function heat() {
    const sorted = Float32Array.from(maps[0]).sort(), most = Math.max(1, sorted[Math.floor(0.99 * (sorted.length - 1))]);
    maps.forEach((map, k) => {
      const values = new Uint8Array(3 * map.length);
      map.forEach((each, i) => {
        const color = 3 * Math.min(255, Math.max(0, Math.floor((each / most) * 256)));
        for (let c = 0; c < 3; c++) values[c * map.length + i] = colors[color + c];
      });
      surprise.views[k] = { ...surprise.views[k], channels: 3, levels: 256 };
      surprise.whole(k, values.buffer);
    });
    const ramp = $(".legend canvas", root), picture = new ImageData(256, 1);
    for (let i = 0; i < 256; i++) picture.data.set([...colors.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    ramp.getContext("2d").putImageData(picture, 0, 0);
    $(".legend .most", root).textContent = `${number(most, 1)} bits or more`;
  }
  function change(what) {
    const asked = { do: what, model: fields.model.value, seed: Math.floor(Math.random() * 2 ** 31) };
    const work = works[CHANGES.indexOf(what)];
    if (!photo) return work.say("choose a picture first", true);
    if (what === "upscale") asked.factor = Number(fields.factor.value);
    else asked.images = Number(fields.images.value);
    if (what === "complete") {
      if (hole.empty) return work.say("paint a hole first: choose the brush or the box, and paint on the picture", true);
      asked.tries = Number(fields.tries.value);
    }
    for (const each of works) each.stop();
    $(".results", root).hidden = false;
    const id = work.run(asked, (event, payload) => {
      if (event.event === "begun") drawn = id;
      results.hear(event, payload);
    }, what === "complete" ? hole.mask : undefined);
  }

  fields.file.addEventListener("change", () => take(fields.file.files[0]));
  fields.model.addEventListener("change", () => (photo ? score() : fit()));
  fields.clear.addEventListener("click", () => photo && (hole.mask.fill(0), hole.show()));
  fields.zoom.addEventListener("input", () => board.root.style.setProperty("--zoom", fields.zoom.value));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("paste", ({ clipboardData }) => take(clipboardData.files[0]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => (event.preventDefault(), take(event.dataTransfer.files[0])));
  fit();
}
