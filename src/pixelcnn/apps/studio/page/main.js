// The page: its sections, those that the models are made for, and what happens when the connection ends.
import { drawing } from "./draw.js";
import { connect } from "./link.js";
import { $ } from "./parts.js";
import { pictures } from "./picture.js";
import { training } from "./training.js";

const facts = await (await fetch("facts")).json(), able = facts.models.some((model) => model.pictures);
for (const each of document.querySelectorAll(".with-runs")) each.hidden = !facts.runs.length;
for (const each of document.querySelectorAll(".with-pictures")) each.hidden = !able;
connect(() => ($("#ended").hidden = false));
$("#ended button").addEventListener("click", () => location.reload());
drawing($("#draw"), facts);
if (able) pictures($("#picture"), facts);
if (facts.runs.length) training($("#training"));
