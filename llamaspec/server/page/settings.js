/** The settings panel: what a person has set, as the fields of a request. Empty is the server's own. */

import { byId } from "./dom.js";

const SAMPLING = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];
const form = byId("settings-form");
const fields = form.elements;

/** Fields that the chosen mode has no use for are disabled. */
function enable() {
  const mode = fields.mode.value;
  fields.draft_max.disabled = mode !== "auto" && mode !== "fixed";
  fields.p_min.disabled = mode !== "fixed";
}

fields.mode.addEventListener("change", enable);
form.addEventListener("reset", () => setTimeout(enable));
form.addEventListener("submit", (event) => event.preventDefault());

/** Whether every value is one that can be; otherwise the first that isn't is shown. */
export function valid(show) {
  if (form.checkValidity()) return true;
  show();
  return form.reportValidity();
}

export function systemPrompt() {
  return fields.system.value.trim() || null;
}

/** The sampling fields that are set, and `speculative` where a mode is chosen. */
export function chosen() {
  const request = Object.fromEntries(set(SAMPLING));
  const mode = fields.mode.value;
  if (mode) request.speculative = { mode, ...Object.fromEntries(set(["draft_max", "p_min"])) };
  return request;
}

function set(names) {
  return names
    .filter((name) => !fields[name].disabled && fields[name].value !== "")
    .map((name) => [name, fields[name].valueAsNumber]);
}
