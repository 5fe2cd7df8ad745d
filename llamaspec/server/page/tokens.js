/** An answer token by token: who drafted each, and on hover or by arrow keys how sure the model was. */

import { byId, el } from "./dom.js";
import { drafterClass, drafterName, number, percent } from "./format.js";

const KEYS = {
  ArrowRight: (view) => view.index + 1,
  ArrowLeft: (view) => view.index - 1,
  ArrowDown: (view) => view.otherRound(1),
  ArrowUp: (view) => view.otherRound(-1),
  Home: () => 0,
  End: (view) => view.tokens.length - 1,
};
let views = 0;

/** One tab stop: arrow keys go from token to token, or with up and down from round to round. */
export class TokenView {
  constructor() {
    this.tokens = [];
    this.index = 0;
    this.id = `tokens-${views++}`;
    this.list = el("div", {
      class: "tokens",
      role: "listbox",
      tabindex: "0",
      "aria-label": "Tokens of the answer. Left and right step by token, up and down by round.",
      onpointerover: (event) => this.point(event.target),
      onpointerleave: hideTip,
      onclick: (event) => this.choose(this.indexOf(event.target)),
      onfocus: () => this.list.matches(":focus-visible") && this.choose(this.index),
      onblur: () => this.leave(),
      onkeydown: (event) => this.press(event),
    });
    this.legend = el("ul", { class: "legend" });
    this.element = el("div", {}, this.list, this.legend);
  }

  /** A piece of the answer and the `token_details` that came with it. */
  add(text, details) {
    for (const { text: piece, drafter = null, round, probability } of pieces(text, details)) {
      const marks = ["token", drafterClass(drafter), piece.includes("\n") ? "newline" : ""].filter(Boolean);
      const element = el("span", { class: marks.join(" "), role: "option" }, piece);
      this.tokens.push({ element, text: piece, drafter, round, probability });
      this.list.append(element);
    }
  }

  /** Once the answer has ended: how many tokens are whose. */
  finish() {
    const counts = new Map();
    for (const { drafter } of this.tokens) counts.set(drafter, (counts.get(drafter) ?? 0) + 1);
    const entries = [...counts].map(([drafter, count]) => {
      const sample = el("span", { class: `token ${drafterClass(drafter)}` }, drafterName(drafter));
      return el("li", {}, sample, ` ${count}`);
    });
    this.legend.replaceChildren(...entries);
  }

  indexOf(element) {
    return this.tokens.findIndex((token) => token.element === element);
  }

  point(element) {
    const token = this.tokens[this.indexOf(element)];
    if (token) showTip(token);
  }

  choose(index) {
    if (!(index in this.tokens)) return;
    this.tokens[this.index].element.classList.remove("active");
    this.index = index;
    const { element } = this.tokens[index];
    element.id = `${this.id}-${index}`;
    element.setAttribute("aria-label", describe(this.tokens[index]).join(", "));
    element.classList.add("active");
    this.list.setAttribute("aria-activedescendant", element.id);
    element.scrollIntoView({ block: "nearest" });
    showTip(this.tokens[index]);
  }

  leave() {
    this.tokens[this.index]?.element.classList.remove("active");
    hideTip();
  }

  otherRound(step) {
    const { round } = this.tokens[this.index];
    let index = this.index;
    while (this.tokens[index]?.round === round) index += step;
    return Math.max(0, Math.min(index, this.tokens.length - 1));
  }

  press(event) {
    if (event.key === "Escape") return hideTip();
    if (!(event.key in KEYS) || !this.tokens.length || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(KEYS[event.key](this));
  }
}

/** The text, cut by its tokens. Where theirs differs, as in half characters, the rest is one piece. */
function* pieces(text, details) {
  let rest = text;
  for (const [index, detail] of details.entries()) {
    const last = index === details.length - 1;
    const piece = rest.startsWith(detail.text) && !last ? detail.text : rest;
    if (piece) yield { ...detail, text: piece };
    rest = rest.slice(piece.length);
  }
  if (rest) yield { text: rest };
}

function describe({ text, drafter, round, probability }) {
  const who = drafter ? `drafted by the ${drafterName(drafter)}, confirmed` : "the main model's own";
  const lines = [JSON.stringify(text), who, `probability ${percent(probability)}`];
  if (probability > 0 && probability < 0.01) lines[2] = `probability ${number(100 * probability, 2)} %`;
  return round ? [...lines, `round ${round}`] : lines;
}

let shown = null; // the token that the tip is about

function showTip(token) {
  const tip = byId("tip");
  shown = token.element;
  const [what, ...facts] = describe(token);
  tip.replaceChildren(el("code", {}, what), ...facts.map((fact) => el("div", {}, fact)));
  tip.hidden = false;
  place(tip);
}

function place(tip) {
  const at = shown.getClientRects()[0] ?? shown.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8));
  const below = at.bottom + 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : at.top - tip.offsetHeight - 6}px`;
}

function hideTip() {
  byId("tip").hidden = true;
  shown = null;
}

addEventListener("scroll", () => shown && place(byId("tip")), { capture: true, passive: true });
