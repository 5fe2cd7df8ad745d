/** The API key: asked for when the server wants one, kept for this tab. */

import { byId } from "./dom.js";

const NAME = "llamaspec-key";

/** Tells "given" when there is a new key. */
export const keys = new EventTarget();
let asking = null;

export const key = () => sessionStorage.getItem(NAME);

/** Ask for a key; true once there is one, false where the person would not. One dialog serves all who ask. */
export function askKey(refused) {
  asking ??= ask(refused).finally(() => (asking = null));
  return asking;
}

function ask(refused) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  const before = document.activeElement;
  byId("key-error").textContent = refused ? "The server did not accept that key." : "";
  input.value = "";
  byId("key-button").hidden = true;
  return new Promise((resolve) => {
    const listening = new AbortController();
    const { signal } = listening;
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, input.value.trim());
      dialog.close("key");
      keys.dispatchEvent(new Event("given"));
    }, { signal });
    byId("key-cancel").addEventListener("click", () => dialog.close(""), { signal });
    dialog.addEventListener("close", () => {
      listening.abort();
      const given = dialog.returnValue === "key";
      dialog.returnValue = "";
      byId("key-button").hidden = given;
      before?.focus();
      resolve(given);
    }, { signal });
    dialog.showModal();
    input.focus();
  });
}

byId("key-button").addEventListener("click", () => askKey(false));
