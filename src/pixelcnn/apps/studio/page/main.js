// The page: its sections, and what happens when the connection ends.
import { drawing } from "./draw.js";
import { connect } from "./link.js";
import { $ } from "./parts.js";
import { pictures } from "./picture.js";
import { training } from "./training.js";

const facts = await (await fetch("facts")).json();
connect((code) => {
  $("#ended").hidden = false;
  if (code === 1009) $("#ended").firstChild.data = "That was too much for the studio. ";
});
drawing($("#draw"), facts);
pictures($("#picture"), facts);
if (facts.runs.length) training($("#training"));
for (const each of document.querySelectorAll(".with-runs")) each.hidden = !facts.runs.length;
