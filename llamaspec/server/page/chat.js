/** The conversation: turns in memory, at most one of them being answered. */

import { Answer } from "./answer.js";
import { announce, button, byId, el } from "./dom.js";
import { variants, verdict } from "./compare.js";
import * as settings from "./settings.js";

const NEAR_END = 80; // pixels from the end within which the text is followed

const turns = byId("turns");
const scroll = byId("scroll");
const prompt = byId("prompt");

export class Chat {
  constructor(model) {
    this.model = model; // () => the server's model id, once it is known
    this.turns = [];
    this.running = null; // an AbortController
  }

  /** Ask; with `compared`, twice. */
  async ask(text, compared = false) {
    await this.answer(this.begin(text, compared));
  }

  stop() {
    this.running?.abort();
  }

  clear() {
    this.stop();
    this.turns = [];
    turns.replaceChildren();
    byId("welcome").hidden = false;
    this.refresh();
    prompt.focus();
    announce("Conversation cleared");
  }

  async retry() {
    const last = this.turns.pop();
    if (last.element.contains(document.activeElement)) prompt.focus();
    last.element.remove();
    await this.ask(last.prompt, last.compared);
  }

  begin(text, compared) {
    const turn = { prompt: text, compared, answers: [], history: this.messages() };
    turn.pair = el("div", { class: compared ? "answers pair" : "answers" });
    turn.element = el("section", { class: "turn", "aria-label": `Turn ${this.turns.length + 1}` },
      el("div", { class: "asked" }, el("h3", { class: "hidden" }, "You"), el("p", {}, text)), turn.pair);
    this.turns.push(turn);
    turns.append(turn.element);
    byId("welcome").hidden = true;
    return turn;
  }

  /** The conversation so far. A turn that got no text is left out: templates want the roles to alternate. */
  messages() {
    const system = settings.systemPrompt();
    const said = this.turns.filter((turn) => turn.answers[0]?.text);
    return [
      ...(system ? [{ role: "system", content: system }] : []),
      ...said.flatMap((turn) => [
        { role: "user", content: turn.prompt },
        { role: "assistant", content: turn.answers[0].text },
      ]),
    ];
  }

  async answer(turn) {
    const { signal } = (this.running = new AbortController());
    this.refresh();
    stuck = true;
    follow();
    announce("Answering");
    const chosen = settings.chosen();
    const asked = turn.compared ? variants(chosen) : [{ title: "Answer", settings: chosen }];
    const messages = [...turn.history, { role: "user", content: turn.prompt }];
    const model = this.model();
    for (const variant of asked) {
      if (signal.aborted) break;
      const answer = new Answer(variant.title, !turn.compared);
      turn.answers.push(answer);
      turn.pair.append(answer.element);
      await answer.run({ ...(model && { model }), messages, ...variant.settings }, signal, follow);
    }
    if (turn.compared && turn.answers.length === 2) {
      const said = verdict(turn.answers);
      if (said) {
        turn.element.append(said);
        announce(said.textContent);
      }
    }
    this.running = null;
    this.refresh();
    follow();
  }

  refresh() {
    const { running, turns: all } = this;
    const focused = document.activeElement;
    const stop = byId("stop");
    stop.disabled = !running;
    for (const id of ["send", "compare"]) byId(id).disabled = Boolean(running);
    byId("clear").disabled = all.length === 0;
    turns.querySelectorAll(".retry").forEach((each) => each.remove());
    if (!running && all.length) {
      const last = all.at(-1);
      const place = last.compared ? last.element : last.answers[0].tools;
      place.append(button("Retry", () => this.retry(), { class: "retry" }));
    }
    if (focused !== document.activeElement || focused.disabled || !focused.isConnected) {
      (running ? stop : prompt).focus();
    }
  }
}

let stuck = true; // to the end, unless the person scrolls up
let top = 0;

function follow() {
  if (stuck) scroll.scrollTop = scroll.scrollHeight;
}

scroll.addEventListener("scroll", () => {
  const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END;
  stuck = near || (stuck && scroll.scrollTop >= top);
  top = scroll.scrollTop;
}, { passive: true });
