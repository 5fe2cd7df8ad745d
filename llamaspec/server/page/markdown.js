/** Markdown of a model, which nobody vouches for, as DOM nodes that can do nothing. */

import { copyButton, el } from "./dom.js";
import DOMPurify from "./vendor/dompurify.js";
import { Marked } from "./vendor/marked.js";

const escaped = (text) =>
  text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);

// HTML that a model writes is shown as it stands, so that nothing of its answer is lost; images would be
// requests to elsewhere, so their address is shown as a link.
const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => (/^<br\s*\/?>\s*$/i.test(text) ? "<br>" : escaped(text)),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start"], // class: of code alone, since HTML is escaped
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** The document fragment that this Markdown stands for. */
export function render(text) {
  const fragment = DOMPurify.sanitize(marked.parse(text), ALLOWED);
  fragment.querySelectorAll("a").forEach(fence);
  fragment.querySelectorAll("pre").forEach(frameCode);
  fragment.querySelectorAll("table").forEach(frameTable);
  fragment.querySelectorAll("h1, h2, h3, h4, h5, h6").forEach(lower);
  return fragment;
}

/** A link opens elsewhere and shows where to; one that leads nowhere allowed is its text. */
function fence(link) {
  if (!link.hasAttribute("href")) return link.replaceWith(...link.childNodes);
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.title = link.href;
}

/** A block of code can be scrolled by keyboard, and copied. */
function frameCode(pre) {
  const code = pre.textContent.replace(/\n$/, "");
  const language = /^language-([\w+#.-]{1,30})$/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
  const frame = el("div", { class: "code" });
  pre.replaceWith(frame);
  const copy = copyButton(() => code, { "aria-label": "Copy the code" });
  const label = language ? `Code, ${language}` : "Code";
  frame.append(
    el("div", { class: "code-bar" }, el("span", {}, language), copy),
    el("pre", { tabindex: "0", role: "region", "aria-label": label }, el("code", {}, code)),
  );
}

function frameTable(table) {
  const frame = el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" });
  table.replaceWith(frame);
  frame.append(table);
}

/** The page's own headings come first: an answer's start at level 4. */
function lower(heading) {
  const level = Math.min(6, Number(heading.localName[1]) + 3);
  heading.replaceWith(el(`h${level}`, {}, ...heading.childNodes));
}
