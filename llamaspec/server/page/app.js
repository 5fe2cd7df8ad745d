/** Wires the page together. */

import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { current, watch } from "./live.js";
import * as settings from "./settings.js";

const chat = new Chat(() => current()?.model);
const prompt = byId("prompt");
const views = [...document.querySelectorAll("nav button")];

function show(view) {
  document.body.dataset.view = view;
  for (const each of views) each.setAttribute("aria-pressed", String(each.dataset.view === view));
}

function ask(compared) {
  const text = prompt.value.trim();
  if (!text || chat.running || !settings.valid(() => show("settings"))) return;
  const pointless = compared && current()?.mode === "off";
  byId("notice").textContent = pointless ? "The server was started without speculation: there is no A." : "";
  if (pointless) return;
  prompt.value = "";
  chat.ask(text, compared);
}

/** With room for two the chat stays, and the view is what is beside it. */
const wide = matchMedia("(min-width: 52rem)");
const showFirst = () => show(wide.matches ? "live" : "chat");

wide.addEventListener("change", showFirst);
for (const each of views) each.addEventListener("click", () => show(each.dataset.view));
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(false);
});
byId("compare").addEventListener("click", () => ask(true));
byId("stop").addEventListener("click", () => chat.stop());
byId("clear").addEventListener("click", () => chat.clear());
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask(false);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented) chat.stop();
});
showFirst();
prompt.focus();
watch();
