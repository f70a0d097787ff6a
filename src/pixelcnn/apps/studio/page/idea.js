// The chain of views of the picture on the page, and what each factor pays.
import { $, make, number, times } from "./parts.js";

export function chain(root, board, bits, model) {
  const total = bits.reduce((sum, each) => sum + each, 0), last = bits.length - 1;
  const steps = board.views.map((view, k) => {
    const canvas = make("canvas", { width: view.width, height: view.height, role: "img", "aria-label": `View ${k}, ${times(view)}` });
    canvas.getContext("2d").putImageData(board.data[k][0], 0, 0);
    const given = k < last ? make("span", {}, "p(", variable("x", k), " | ", variable("x", k + 1), ")") : make("span", {}, "p(", variable("x", k), ")");
    const bar = make("div", { class: "bar" });
    bar.style.width = `${(100 * bits[k]) / total}%`;
    const arrow = make("div", { class: "arrow" }, k < last ? model.auxiliaries[k] : "");
    const share = make("div", { class: "share" }, bar, `${number((100 * bits[k]) / total, 1)} % of the bits`);
    return make("li", {}, make("div", { class: "view" }, variable("x", k), ` ${times(view)}`, canvas), arrow, given, share);
  });
  $(".chain", root).replaceChildren(...steps);
}

const variable = (name, k) => make("i", {}, name, make("sub", {}, k));
