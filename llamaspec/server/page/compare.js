/** A/B: the same prompt with speculation and without, one after the other, and what that says. */

import { el } from "./dom.js";
import { plural, rate, times } from "./format.js";

const MAX_SEED = 2 ** 31;

/** What the two requests ask for over the common body; `settings` as for a single answer. */
export function variants(settings) {
  const seed = settings.seed ?? Math.floor(Math.random() * MAX_SEED);
  const { speculative, ...sampling } = settings;
  const on = speculative?.mode === "off" ? {} : { speculative };
  return [
    { title: "With speculation", settings: { ...sampling, seed, ...on } },
    { title: "Without", settings: { ...sampling, seed, speculative: { mode: "off" } } },
  ];
}

/** Both speeds and their ratio; nothing where one of the two did not come to its end. */
export function verdict([on, off]) {
  const speeds = [on, off].map((answer) => answer.timings.predicted_per_second);
  if (!on.complete || !off.complete || !speeds[0] || !speeds[1]) return null;
  const ratio = speeds[0] / speeds[1];
  const drafted = on.timings.draft_n > 0;
  const noise = "of plain; nothing was drafted, so the difference is noise";
  const meaning = drafted ? "as fast as without" : noise;
  return el("p", { class: "verdict" },
    el("strong", {}, times(ratio)), ` ${meaning}: ${rate(speeds[0])} against ${rate(speeds[1])}. `,
    sameness(on.text, off.text));
}

function sameness(on, off) {
  if (on === off) return "The texts are the same.";
  let length = 0;
  while (on[length] === off[length]) length++;
  const where = plural(length, "character");
  return `The texts part after ${where}: samples do, and greedy texts at near ties.`;
}
