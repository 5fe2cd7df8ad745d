/** Small helpers over the DOM. Text only ever goes in as text. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of this id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/** A new element; `on…` keys are listeners, true is an empty attribute, false and null are left out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

/** Told to screen readers, once. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Where the page is not on a secure origin there is no clipboard API. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement;
  const area = el("textarea", { class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  if (!copied) throw new Error("The browser refused to copy.");
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(text, attributes = {}) {
  const copy = button("Copy", async () => {
    try {
      await copyText(text());
      announce("Copied");
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Not copied";
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  }, attributes);
  return copy;
}
