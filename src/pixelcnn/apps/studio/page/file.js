// The picture as a file: compressed without loss, and read again as its bytes arrive.
import { Board } from "./board.js";
import { $, Work, make, number, percent, times } from "./parts.js";

export class File {
  // `model()` is the name of the model that compresses.
  constructor(root, model) {
    Object.assign(this, { root, model, photo: null, parts: [], content: null });
    this.board = new Board($(".stage", root), "The picture so far");
    this.work = new Work($("[name=compress]", root), $(".status", root), () => this.compress());
    this.slider = $("[name=bytes]", root);
    this.slider.addEventListener("input", () => this.show());
    $("[name=save]", root).addEventListener("click", () => this.save());
  }
  begin(photo) {
    this.work.stop();
    this.work.say("");
    Object.assign(this, { photo, parts: [], content: null });
    $(".found", this.root).hidden = true;
  }
  compress() {
    if (!this.photo) return this.work.say("choose a picture above first", true);
    [this.parts, this.used] = [[], this.model()];
    this.work.run({ do: "compress", model: this.used }, (event, payload) => {
      if (event.event === "file") this.content = payload;
      else if (event.event === "part") this.take({ ...event, pixels: new Uint8Array(payload) });
    });
  }
  take(part) {
    this.parts.push(part);
    $(".found", this.root).hidden = false;
    this.slider.max = this.content.byteLength;
    this.slider.value = part.end;
    this.show();
  }
  // Show the last view that is complete after as many bytes as the slider says.
  show() {
    const bytes = Number(this.slider.value), part = this.parts.findLast(({ end }) => end <= bytes);
    const raw = this.photo.pixels.length, all = this.content.byteLength;
    const seen = part ? `${times(part)}${part.same ? ", identical to the original" : ""}` : "no complete view yet";
    const said = `${number(bytes)} of ${number(all)} bytes: ${seen}`;
    $("output", this.root).textContent = said;
    this.slider.setAttribute("aria-valuetext", said);
    $(".ratio", this.root).textContent = `${number(raw)} bytes of pixels became ${number(all)} bytes (${percent(all / raw)}) with ${this.used}.`;
    this.board.begin([{ channels: 1, height: 1, width: 1, ...part, levels: 256 }]);
    if (part) this.board.whole(0, part.pixels);
  }
  save() {
    const address = URL.createObjectURL(new Blob([this.content]));
    make("a", { href: address, download: `${this.photo.name.replace(/\.\w+$/, "")}.pxc` }).click();
    URL.revokeObjectURL(address);
  }
}
