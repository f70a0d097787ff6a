// Images on a board: their views, whose pixels appear as they are drawn, and a pixel that one points at.
import { copy, make, still, times } from "./parts.js";

export class Board {
  // `point(image, k, row, col)` is called when somebody points at a pixel, with the mouse or the arrow keys.
  constructor(root, name, point = null) {
    Object.assign(this, { root, name, point, views: [], data: [], frames: [], k: 0, tools: null, at: [0, 0] });
    root.classList.add("board");
    this.list = make("div", { class: "views", role: "group", "aria-label": `Views of ${name}` });
  }
  begin(views, images = 1) {
    this.views = views;
    this.data = views.map((view) => Array.from({ length: images }, () => new ImageData(view.width, view.height)));
    this.frames = Array.from({ length: images }, (_, image) => this.frame(image, images));
    this.choices = views.map((view, k) =>
      make("button", { type: "button", onclick: () => this.show(k) }, make("canvas", { "aria-hidden": "true" }), make("span", {}, times(view))));
    this.list.replaceChildren(...this.choices.toReversed());
    this.root.replaceChildren(make("div", { class: "frames" }, ...this.frames), ...(views.length > 1 && images === 1 ? [this.list] : []));
    this.show((this.newest = views.length - 1));
  }
  frame(image, images) {
    const name = images > 1 ? `${this.name}, ${image + 1} of ${images}` : this.name;
    const canvas = make("canvas", {
      tabindex: 0, role: "application", "aria-roledescription": "picture", "aria-label": `${name}: arrow keys move over its pixels`,
      onpointerdown: (event) => (this.tools?.down(this.where(canvas, event), event), this.look(frame, this.where(canvas, event))),
      onpointermove: (event) => (this.tools?.move(this.where(canvas, event)), this.look(frame, this.where(canvas, event))),
      onpointerup: () => this.tools?.up(),
      onpointercancel: () => this.tools?.up(),
      onfocus: () => canvas.matches(":focus-visible") && this.look(frame, this.at),
      onkeydown: (event) => this.key(frame, event),
    });
    const mark = make("div", { class: "mark", hidden: true });
    const frame = Object.assign(make("div", { class: "frame" }, canvas, mark), { canvas, mark, image });
    return frame;
  }
  where(canvas, { clientX, clientY }) {
    const box = canvas.getBoundingClientRect();
    const place = (at, size, pixels) => Math.min(pixels - 1, Math.max(0, Math.floor((at / size) * pixels)));
    return [place(clientY - box.top, box.height, canvas.height), place(clientX - box.left, box.width, canvas.width)];
  }
  key(frame, event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move && !(this.tools && [" ", "Enter"].includes(event.key))) return;
    event.preventDefault();
    if (!move) return this.tools.press(this.at);
    const step = event.shiftKey ? 8 : 1, { height, width } = this.views[this.k];
    const within = (value, side) => Math.min(side - 1, Math.max(0, value));
    this.look(frame, [within(this.at[0] + step * move[0], height), within(this.at[1] + step * move[1], width)]);
  }
  look(frame, [row, col]) {
    const { width, height } = this.views[this.k];
    this.at = [row, col];
    for (const each of this.frames) each.mark.hidden = each !== frame;
    const style = { left: col / width, top: row / height, width: 1 / width, height: 1 / height };
    for (const [name, share] of Object.entries(style)) frame.mark.style[name] = `${100 * share}%`;
    this.point?.(frame.image, this.k, row, col);
  }
  show(k) {
    const { width, height } = this.views[(this.k = k)];
    if (this.twin?.views[k] && this.twin.k !== k) this.twin.show(k);
    this.root.dataset.k = k;
    this.at = [Math.min(this.at[0], height - 1), Math.min(this.at[1], width - 1)];
    for (const { canvas, mark, image } of this.frames) {
      copy(this.data[k][image], canvas);
      mark.hidden = true;
    }
    this.choices.forEach((choice, i) => choice.setAttribute("aria-pressed", i === k));
  }
  // New pixels of view k: their places, and their values (images, channels, places).
  pixels(k, payload, count) {
    performance.mark("pixels");
    if (still.matches) return;
    if (k < this.newest) this.lay(k);
    this.put(k, new Uint8Array(payload, 4 * count), new Uint32Array(payload, 0, count));
  }
  // A whole view of all images: values (images, channels, height, width).
  whole(k, values) {
    if (k < this.newest) this.newest = this.k = k;
    this.put(k, values, null);
    copy(this.data[k][0], this.choices[k].querySelector("canvas"));
    if (this.k === k) this.show(k);
  }
  // Lay the next coarser view under a view that begins.
  lay(k) {
    const { width: W, height: H } = this.views[k], { width: w, height: h } = this.views[k + 1];
    const [rows, cols] = [Math.ceil(H / h), Math.ceil(W / w)];
    this.data[k].forEach((fine, image) => {
      const to = new Uint32Array(fine.data.buffer), from = new Uint32Array(this.data[k + 1][image].data.buffer);
      for (let row = 0; row < H; row++)
        for (let col = 0; col < W; col++) to[row * W + col] = from[Math.floor(row / rows) * w + Math.floor(col / cols)];
    });
    this.show((this.newest = k));
  }
  put(k, values, places) {
    const { channels, levels, width, height } = this.views[k], count = places ? places.length : width * height;
    this.data[k].forEach((picture, image) => {
      const [red, green, blue] = [0, 1, 2].map((c) => (image * channels + Math.min(c, channels - 1)) * count);
      const scale = 255 / (levels - 1), { data } = picture;
      let [top, bottom] = [height, 0];
      for (let j = 0; j < count; j++) {
        const at = places ? places[j] : j, row = Math.floor(at / width);
        data.set([scale * values[red + j], scale * values[green + j], scale * values[blue + j], 255], 4 * at);
        top = Math.min(top, row);
        bottom = Math.max(bottom, row);
      }
      if (k === this.k && bottom >= top)
        this.frames[image].canvas.getContext("2d").putImageData(picture, 0, 0, 0, top, width, bottom - top + 1);
    });
  }
  // What a job tells that draws on this board.
  hear({ event, views, images, k, count }, payload) {
    if (event === "begun") this.begin(views, images);
    else if (event === "pixels") this.pixels(k, payload, count);
    else if (event === "view") this.whole(k, new Uint8Array(payload));
  }
}
