// A picture of one's own: what it costs, what surprises, and what the model makes of it.
import { Board } from "./board.js";
import { File } from "./file.js";
import { Hole } from "./hole.js";
import { chain } from "./idea.js";
import { Look } from "./look.js";
import { $, Work, make, models, number, times } from "./parts.js";

const CHANGES = ["upscale", "colorize", "complete"], FIRST = "photos-pyramid";

export function pictures(root, facts) {
  const form = $("form", root), fields = form.elements, look = new Look($(".look", root)), { bytes, pixels, side } = facts.limits;
  const colors = Uint8Array.from(facts.colors.match(/../g), (byte) => parseInt(byte, 16));
  let [of, drawn, photo, last, maps, bits, sizes] = [0, 0, null, null, [], [], {}];
  const point = (image, k, row, col) => {
    if (of) look.at(of, board.views[k], { image, k, row, col });
    if (maps[k]) $(".cost", root).textContent = `${number(maps[k][row * board.views[k].width + col], 2)} bits`;
  };
  const board = new Board($(".stage", root), "The picture", point), surprise = new Board($(".surprise", root), "Its surprisal", point);
  [board.twin, surprise.twin] = [surprise, board]; // they show the same view
  const pointed = (image, k, row, col) => look.at(drawn, results.views[k], { image, k, row, col });
  const results = new Board($(".results .stage", root), "Result", pointed);
  const main = new Work(fields.again, $(".opening", root), () => score()), status = $(".working", root);
  const works = Object.fromEntries(CHANGES.map((name) => [name, new Work(fields[name], status, () => change(name))]));
  const hole = new Hole(board, form, (text) => works.complete.say(text)), file = new File($("#file"), () => fields.model.value);
  const model = () => facts.models.find(({ name }) => name === fields.model.value);

  // Show a new picture, and forget everything about the one before.
  function begin(event, payload) {
    photo = { ...event, pixels: new Uint8Array(payload) };
    [of, drawn, maps, bits, sizes] = [0, 0, [], [], {}];
    for (const name of CHANGES) works[name].stop();
    [$(".facts", root).hidden, $(".results", root).hidden] = [false, true];
    status.textContent = "";
    $(".notes", root).textContent = [`${photo.name}, ${times(photo)}`, ...photo.notes].join("; ");
    board.begin([{ ...photo, levels: 256 }]);
    board.whole(0, photo.pixels);
    hole.begin(photo);
    surprise.root.replaceChildren();
    look.clear();
    table();
  }
  function open(fields, content) {
    const tell = (event, payload) => {
      if (event.event === "photo") begin(event, payload);
      if (event.event === "done") score();
    };
    main.run(fields, tell, content);
  }
  async function take(given) {
    if (!given) return;
    fields.file.value = "";
    if (given.size > bytes) return main.say(`${given.name} is ${number(given.size / 1e6, 1)} MB: the limit is ${number(bytes / 1e6, 1)} MB`, true);
    if (!fields.side.reportValidity()) return;
    last = given;
    open({ do: "open", name: given.name, side: Number(fields.side.value) }, await given.arrayBuffer());
  }
  function score() {
    if (!photo) return main.say("choose a picture first", true);
    fit();
    main.run({ do: "score", model: fields.model.value }, (event, payload, id) => {
      board.hear(event, payload);
      if (event.event === "begun") {
        [of, maps, bits, sizes] = [id, [], [], {}];
        $(".cost", root).textContent = "–";
        look.clear();
        file.begin(photo);
        hole.attach();
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
  }
  // Offer what the model can do.
  function fit() {
    const { upscale, colorize } = model(), able = facts.models.filter((each) => each.colorize).map(({ name }) => name);
    fields.factor.replaceChildren(...upscale.map((factor) => make("option", { value: factor }, `×${factor}`)));
    fields.upscale.disabled = fields.factor.hidden = !upscale.length;
    fields.colorize.disabled = !colorize;
    const gray = colorize ? "" : `This model has no gray view. To colorize, choose ${able.join(" or ") || "a model with one"}.`;
    $(".able", root).textContent = upscale.length ? gray : `This model has no smaller view, so it cannot enlarge. ${gray}`;
  }
  function table() {
    const dims = photo.channels * photo.width * photo.height, total = bits.reduce((sum, each) => sum + each, 0);
    const rows = bits.length ? [...Object.entries(sizes), [fields.model.value, total / 8]].sort((one, other) => other[1] - one[1]) : [];
    const cells = [number, (bytes) => number((8 * bytes) / dims, 3)].map((cell) => (bytes) => make("td", {}, cell(bytes)));
    const row = ([name, bytes]) =>
      make("tr", { class: name === fields.model.value && "ours" }, make("th", { scope: "row" }, name), ...cells.map((cell) => cell(bytes)));
    $("tbody.sizes", root).replaceChildren(...rows.map(row));
    $("tbody.parts", root).replaceChildren(...bits.map((each, k) => row([`${times(board.views[k])} view`, each / 8])));
  }
  // Show the bits of each pixel, all views on one scale.
  function heat() {
    const sorted = Float32Array.from(maps[0]).sort(), most = Math.max(1, sorted[Math.floor(0.99 * (sorted.length - 1))]);
    const ramp = $(".legend canvas", root), picture = new ImageData(256, 1);
    for (let i = 0; i < 256; i++) picture.data.set([...colors.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    ramp.getContext("2d").putImageData(picture, 0, 0);
    $(".legend .most", root).textContent = `${number(most, 1)} bits or more`;
    maps.forEach((map, k) => {
      const values = new Uint8Array(3 * map.length);
      map.forEach((each, i) => {
        const color = 3 * Math.min(255, Math.floor((each / most) * 256));
        for (let c = 0; c < 3; c++) values[c * map.length + i] = colors[color + c];
      });
      surprise.views[k] = { ...surprise.views[k], channels: 3, levels: 256 };
      surprise.whole(k, values);
    });
  }
  function change(what) {
    const asked = { do: what, model: fields.model.value, seed: Math.floor(Math.random() * 2 ** 31) }, work = works[what];
    if (what === "upscale") asked.factor = Number(fields.factor.value);
    else if (fields.images.reportValidity()) asked.images = Number(fields.images.value);
    if (what === "complete") {
      if (hole.empty) return work.say("paint a hole first: choose the brush or the box, and paint on the picture", true);
      if (!fields.tries.reportValidity()) return;
      asked.tries = Number(fields.tries.value);
    }
    for (const name of CHANGES) works[name].stop();
    work.run(asked, (event, payload, id) => {
      if (event.event === "begun") [drawn, $(".results", root).hidden] = [id, false];
      results.hear(event, payload);
    }, what === "complete" ? hole.mask : undefined);
  }

  $(".limits", root).textContent = 
    `Files of up to ${number(bytes / 1e6, 1)} MB and ${number(pixels / 1e6, 1)} million pixels. Larger pictures are scaled down to`;
  fields.side.max = side;
  for (let i = 0; i < facts.photos; i++) {
    const image = make("img", { src: `photos/${i}`, alt: `Photograph ${i + 1}`, width: 128, height: 128 });
    $(".photos", root).append(make("button", { type: "button", onclick: () => open({ do: "photo", photo: i }, (last = null)) }, image));
  }
  models(fields.model, facts.models.filter((each) => each.pictures));
  if ([...fields.model.options].some(({ value }) => value === FIRST)) fields.model.value = FIRST;
  fields.file.addEventListener("change", () => take(fields.file.files[0]));
  fields.side.addEventListener("change", () => take(last));
  fields.model.addEventListener("change", () => (photo ? score() : fit()));
  fields.clear.addEventListener("click", () => hole.clear());
  fields.zoom.addEventListener("input", () => board.root.style.setProperty("--zoom", fields.zoom.value));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("paste", ({ clipboardData }) => take(clipboardData.files[0]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => (event.preventDefault(), take(event.dataTransfer.files[0])));
  fit();
}
