// The chain of views of the picture on the page, and what each factor pays.
import { $, make, number, times } from "./parts.js";

export function chain(root, board, bits, { auxiliaries }) {
  const total = bits.reduce((sum, each) => sum + each, 0), last = bits.length - 1;
  const steps = board.views.flatMap((view, k) => {
    const name = make("p", {}, x(k), ` ${times(view)}`), given = k < last ? [" | ", x(k + 1)] : [];
    const canvas = make("canvas", { width: view.width, height: view.height, role: "img", "aria-label": `View ${k}, ${times(view)}` });
    canvas.getContext("2d").putImageData(board.data[k][0], 0, 0);
    const share = (100 * bits[k]) / total, portion = make("div", { class: "portion" });
    portion.style.width = `${share}%`;
    const factor = make("p", {}, "p(", x(k), ...given, ")"), part = make("p", { class: "soft" }, `${number(share, 1)} % of the bits`);
    const step = make("li", {}, name, canvas, factor, portion, part);
    return k < last ? [step, make("li", { class: "arrow" }, variable("a", k + 1), make("span", {}, auxiliaries[k]))] : [step];
  });
  $(".chain", root).replaceChildren(...steps);
}

const variable = (name, k) => make("i", {}, name, make("sub", {}, k));
const x = (k) => variable("x", k);
