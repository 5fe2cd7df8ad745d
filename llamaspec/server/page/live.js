/** The live view: GET /stats once a second while the page can be seen. */

import { stats } from "./api.js";
import { columns, rows } from "./charts.js";
import { byId, el } from "./dom.js";
import { clock, drafterClass, drafterName, number, percent, plural, rate, share, times } from "./format.js";
import { keys } from "./key.js";

const EVERY = 1000; // milliseconds

let latest = null;
const drawn = new Map();

/** The last statistics of the server, or null. */
export const current = () => latest;

/** Watch for as long as the page is open. */
export async function watch() {
  for (;;) {
    if (document.hidden) await once(document, "visibilitychange");
    try {
      latest = await stats();
      draw(latest);
      connected("");
    } catch (error) {
      connected(error.message);
      if (error.status === 401) {
        await once(keys, "given");
        continue;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

function once(target, name) {
  return new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
}

function connected(problem) {
  const status = byId("connection");
  if (status.textContent !== problem) status.textContent = problem;
}

function draw(told) {
  const { model, draft_model: draft, mode } = told;
  section("pair", { model, draft, mode }, () => [draft ? `${model} + ${draft}` : model, ` · ${mode}`]);
  section("speed", told.speed, speed);
  const { acceptance_rate: all, acceptance_per_position: byPosition, drafters } = told;
  section("acceptance", { all, byPosition, drafters }, acceptance);
  section("lengths", told.draft_lengths, lengths);
  section("slots", { slots: told.slots, queue: told.queue, kv: told.kv }, slots);
  section("history", told.history, history);
}

/** Draw anew only what has changed: what is looked at or read out stays where it is. */
function section(id, data, render) {
  const json = JSON.stringify(data);
  if (drawn.get(id) === json) return;
  drawn.set(id, json);
  const held = byId(id).querySelector(".table");
  const scrolled = held?.scrollTop ?? 0;
  const focused = held !== null && held === document.activeElement;
  byId(id).replaceChildren(...render(data));
  const table = byId(id).querySelector(".table");
  if (table) table.scrollTop = scrolled;
  if (focused) table?.focus();
}

function speed({ tokens_per_second: now, plain_tokens_per_second: plain, estimated_speedup: speedup }) {
  const max = Math.max(now ?? 0, plain ?? 0);
  const bars = [
    { label: "now", value: now, text: rate(now) },
    { label: "plain", value: plain, text: rate(plain), kind: "plain" },
  ];
  return [
    el("p", { class: "headline" }, el("strong", {}, times(speedup)), " of plain, by estimate, last minute"),
    rows("Tokens per second", bars, max),
  ];
}

function acceptance({ all, byPosition, drafters }) {
  const bars = byPosition.map((value, index) => ({
    label: String(index + 1), value, text: number(100 * value),
  }));
  const lines = Object.entries(drafters).map(([name, counted]) => [
    el("span", { class: `token ${drafterClass(name)}` }, drafterName(name)),
    counted.draft_n, counted.draft_n_accepted, share(counted.draft_n_accepted, counted.draft_n),
  ]);
  return [
    el("h3", {}, "Accepted by position, %", el("span", {}, `${percent(all)} of all drafted`)),
    bars.length ? columns("Acceptance by position, in percent", bars, 1) : nothing("Nothing drafted yet."),
    lines.length ? table(["Drafter", "drafted", "kept", ""], lines) : null,
  ].filter(Boolean);
}

function lengths(counts) {
  const widths = Object.keys(counts).map(Number);
  const title = el("h3", {}, "Rounds by draft length");
  if (!widths.length) return [title, nothing("No rounds yet.")];
  const bars = Array.from({ length: Math.max(...widths) + 1 }, (_, width) => {
    const value = counts[width] ?? 0;
    return { label: String(width), value, text: String(value) };
  });
  return [title, columns("Rounds by draft length", bars, Math.max(1, ...Object.values(counts)))];
}

function slots({ slots: all, queue, kv }) {
  const busy = all.filter((slot) => slot.busy).length;
  const lines = all.map((slot) => [
    slot.busy ? "busy" : "free", slot.id,
    ...(slot.busy ? [slot.prompt_tokens, slot.predicted_tokens, slot.mode] : ["–", "–", ""]),
  ]);
  const cells = { label: "KV cells", value: kv.used, text: `${kv.used} of ${kv.cells}` };
  const load = `${busy} of ${all.length} busy, ${queue.waiting} of ${queue.limit} queued`;
  return [
    el("h3", {}, "Slots", el("span", {}, load)),
    lines.length ? table(["", "slot", "prompt", "predicted", "mode"], lines) : null,
    rows("KV cache", [cells], kv.cells),
  ].filter(Boolean);
}

function history(requests) {
  const title = el("h3", {}, "Last requests", el("span", {}, plural(requests.length, "request")));
  if (!requests.length) return [title, nothing("None yet.")];
  const lines = requests.map((request) => [
    clock(request.at), request.predicted_tokens, number(request.tokens_per_second, 1),
    share(request.draft_n_accepted, request.draft_n), times(request.estimated_speedup),
    number(request.time_to_first_token, 2), request.prompt_tokens, request.kind, request.mode,
    request.finish_reason ?? "",
  ]);
  const heads = ["at", "tokens", "tok/s", "kept", "of plain", "first, s", "prompt", "kind", "mode", "end"];
  const frame = { class: "table", tabindex: "0", role: "region", "aria-label": "Last requests" };
  return [title, el("div", frame, table(heads, lines))];
}

const nothing = (text) => el("p", { class: "hint" }, text);

/** Columns of figures, as the first line has them, are set right, texts left. */
function table(heads, lines) {
  const sides = lines[0].map((cell) => (/^[\d–]/.test(cell) ? "figure" : null));
  const row = (cells, name, scope) => el("tr", {}, ...cells.map((cell, column) =>
    el(name, { class: sides[column], scope }, cell instanceof Node ? cell : String(cell))));
  return el("table", {},
    el("thead", {}, row(heads, "th", "col")),
    el("tbody", {}, ...lines.map((line) => row(line, "td"))));
}
