/** One answer: its stream, its text as Markdown or by token, and what it cost. */

import { chat } from "./api.js";
import { announce, button, copyButton, el } from "./dom.js";
import { number, percent, plural, rate, times } from "./format.js";
import { render } from "./markdown.js";
import { TokenView } from "./tokens.js";

const ENDINGS = { length: "ended by the token limit", stopped: "stopped" };
let byToken = false; // what the person chose last, for the next answers too

export class Answer {
  /** `title` is its heading; it can be hidden where there is only one answer. */
  constructor(title, titleHidden) {
    this.text = "";
    this.ending = null; // as the server says it, or "stopped", or "failed"
    this.timings = {};
    this.view = new TokenView();
    this.body = el("div", { class: "body" }, this.view.element);
    this.figures = el("p", { class: "figures" });
    this.tools = el("div", { class: "tools" });
    this.element = el("article", { class: "answer" },
      el("h3", { class: titleHidden ? "hidden" : null }, title), this.body, this.figures, this.tools);
  }

  get complete() {
    return this.ending === "stop" || this.ending === "length";
  }

  /** Stream the answer to a request body. Never raises: what went wrong is shown. */
  async run(body, signal, onText) {
    this.element.setAttribute("aria-busy", "true");
    try {
      for await (const chunk of chat(body, signal)) this.take(chunk, onText);
    } catch (error) {
      this.ending = error.name === "AbortError" ? "stopped" : "failed";
      if (this.ending === "failed") {
        this.body.append(el("p", { class: "problem", role: "alert" }, error.message));
      }
    }
    this.finish();
  }

  take(chunk, onText) {
    this.timings = chunk.timings ?? this.timings;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    this.ending = choice.finish_reason ?? this.ending;
    const text = choice.delta?.content ?? "";
    if (text) {
      this.text += text;
      this.view.add(text, choice.token_details ?? []);
      onText();
    }
  }

  finish() {
    this.element.removeAttribute("aria-busy");
    this.view.finish();
    const facts = [...this.facts()].join(" · ");
    this.figures.textContent = facts;
    if (this.text) {
      this.prose = el("div", { class: "prose" }, render(this.text));
      this.toggle = button("By token", () => this.show(!this.shown));
      this.tools.append(this.toggle, copyButton(() => this.text));
      this.body.prepend(this.prose);
      this.show(byToken);
    } else if (this.complete) {
      this.body.append(el("p", { class: "hint" }, "The answer is empty."));
    }
    announce(this.ending === "failed" ? "The answer failed" : `Answer ended. ${facts}`);
  }

  show(tokens) {
    this.shown = byToken = tokens;
    this.toggle.setAttribute("aria-pressed", String(tokens));
    this.view.element.hidden = !tokens;
    this.prose.hidden = tokens;
  }

  /** What is known of the cost; after a stop or a failure the server has told nothing. */
  *facts() {
    const timings = this.timings;
    if (timings.predicted_per_second) yield rate(timings.predicted_per_second);
    if (timings.predicted_n !== undefined) yield plural(timings.predicted_n, "token");
    if (timings.draft_n) {
      const kept = percent(timings.draft_n_accepted / timings.draft_n);
      yield `${timings.draft_n} drafted, ${timings.draft_n_accepted} kept (${kept})`;
    }
    if (timings.estimated_speedup) yield `≈ ${times(timings.estimated_speedup)} plain`;
    if (timings.time_to_first_token_ms) {
      yield `first token ${number(timings.time_to_first_token_ms / 1000, 2)} s`;
    }
    if (this.ending in ENDINGS) yield ENDINGS[this.ending];
  }
}
