// The chain of views of the picture on the page, and what each factor pays.
import { $, copy, make, percent, times } from "./parts.js";

export function chain(root, board, bits, { auxiliaries }) {
  const total = bits.reduce((sum, each) => sum + each, 0), last = bits.length - 1;
  const steps = board.views.flatMap((view, k) => {
    const share = percent(bits[k] / total), portion = make("div", { class: "portion" }), given = k < last ? [" | ", x(k + 1)] : [];
    portion.style.width = share;
    const canvas = copy(board.data[k][0], make("canvas", { role: "img", "aria-label": `View ${k}, ${times(view)}` }));
    const name = make("p", {}, x(k), ` ${times(view)}`), factor = make("p", {}, "p(", x(k), ...given, ")");
    const step = make("li", {}, name, canvas, factor, portion, make("p", { class: "soft" }, `${share} of the bits`));
    return k < last ? [step, make("li", { class: "arrow" }, variable("a", k + 1), make("span", {}, auxiliaries[k]))] : [step];
  });
  $(".chain", root).replaceChildren(...steps);
}

const variable = (name, k) => make("i", {}, name, make("sub", {}, k));
const x = (k) => variable("x", k);
