// Painting a hole on a board: with a brush or a box, at the resolution of the picture.
import { make } from "./parts.js";

export class Hole {
  // `say` tells what the next press of a key does.
  constructor(board, form, say) {
    Object.assign(this, { board, form, say, mask: new Uint8Array(0), corner: null, held: null });
    board.tools = this;
  }
  // Begin without a hole, on a new picture.
  begin({ width, height }) {
    Object.assign(this, { width, height, mask: new Uint8Array(width * height), corner: null, held: null });
    this.canvas = make("canvas", { class: "hole", width, height, "aria-hidden": "true" });
    this.attach();
  }
  attach() { this.board.frames[0].append(this.canvas); }
  get tool() { return this.board.k === 0 && this.canvas ? this.form.elements.tool.value : "look"; }
  get empty() { return !this.mask.includes(1); }
  clear() { if (this.canvas) this.show(this.mask.fill(0)); }
  down(at, event) {
    if (this.tool === "look" || event.button) return;
    event.target.setPointerCapture(event.pointerId);
    event.preventDefault();
    event.target.focus({ preventScroll: true });
    Object.assign(this, { corner: at, last: at, before: this.mask.slice(), held: null });
    this.move(at);
  }
  move(at) {
    if (this.corner && this.tool === "brush") this.stroke(this.last, at);
    else if (this.corner) this.box(this.corner, at);
    this.last = at;
  }
  up() { this.corner = null; }
  // By the keyboard: a dot of the brush, or one corner of a box and then the other.
  press(at) {
    if (this.tool === "brush") return this.stroke(at, at);
    if (this.tool !== "box") return this.say("choose the brush or the box to paint with");
    if (this.held) this.box(this.held, at);
    this.say(this.held ? "the box is painted" : `a corner is at row ${at[0]}, column ${at[1]}: go to the other, and press Space`);
    [this.held, this.before] = [this.held ? null : at, this.mask.slice()];
  }
  box([top, left], [bottom, right]) {
    this.mask.set(this.before);
    for (let row = Math.min(top, bottom); row <= Math.max(top, bottom); row++)
      this.mask.fill(1, row * this.width + Math.min(left, right), row * this.width + Math.max(left, right) + 1);
    this.show();
  }
  stroke([row, col], [toRow, toCol]) {
    const steps = Math.max(1, Math.abs(toRow - row), Math.abs(toCol - col)), radius = Number(this.form.elements.brush.value) / 2;
    for (let i = 0; i <= steps; i++) this.dot(row + ((toRow - row) * i) / steps, col + ((toCol - col) * i) / steps, radius);
    this.show();
  }
  dot(y, x, radius) {
    const near = (at, side) => [Math.max(0, Math.ceil(at - radius)), Math.min(side - 1, Math.floor(at + radius))];
    const [[top, bottom], [left, right]] = [near(y, this.height), near(x, this.width)];
    for (let row = top; row <= bottom; row++)
      for (let col = left; col <= right; col++)
        if ((row - y) ** 2 + (col - x) ** 2 <= radius ** 2) this.mask[row * this.width + col] = 1;
  }
  show() {
    const picture = new ImageData(this.width, this.height), colors = new Uint32Array(picture.data.buffer);
    this.mask.forEach((each, i) => each && (colors[i] = 0xb04a30ff));
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }
}
