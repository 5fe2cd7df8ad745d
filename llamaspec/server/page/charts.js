/** Small charts as inline SVG; each says its figures to screen readers, and in a table's stead. */

import { svg } from "./dom.js";

const WIDTH = 320;
const PLOT = 72; // pixels of the highest column
const TOP = 14;
const LABELLED = 14; // columns that have room for a figure each

/** Columns of `{ label, value, text }`, as high as `value` is of `max`. */
export function columns(title, bars, max) {
  const step = WIDTH / Math.max(bars.length, 6);
  const every = Math.ceil(bars.length / LABELLED);
  const base = TOP + PLOT;
  const chart = figure(title, bars, base + 16);
  chart.append(svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: base + 0.5, y2: base + 0.5 }));
  bars.forEach(({ label, value, text }, index) => {
    const height = Math.max(value > 0 ? 1 : 0, PLOT * Math.min(1, value / max));
    const middle = (index + 0.5) * step;
    chart.append(svg("rect", {
      class: "bar", x: index * step + step * 0.12, y: base - height, width: step * 0.76, height, rx: 1.5,
    }));
    if (every === 1) chart.append(svg("text", { x: middle, y: base - height - 4 }, text));
    if (index % every === 0) {
      chart.append(svg("text", { class: "axis-label", x: middle, y: base + 12 }, label));
    }
  });
  return chart;
}

/** Bars of `{ label, value, text, kind }` one below the other, as long as `value` is of `max`. */
export function rows(title, bars, max) {
  const chart = figure(title, bars, bars.length * 24);
  bars.forEach(({ label, value, text, kind }, index) => {
    const y = index * 24;
    const width = max > 0 ? 170 * Math.min(1, (value ?? 0) / max) : 0;
    chart.append(
      svg("text", { class: "start", x: 0, y: y + 15 }, label),
      svg("rect", { class: "track", x: 78, y: y + 5, width: 170, height: 13, rx: 3 }),
      svg("rect", { class: `bar ${kind ?? ""}`, x: 78, y: y + 5, width, height: 13, rx: 3 }),
      svg("text", { class: "end", x: WIDTH, y: y + 15 }, text),
    );
  });
  return chart;
}

function figure(title, bars, height) {
  const told = bars.map(({ label, text }) => `${label}: ${text}`).join(", ");
  return svg("svg", {
    class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${title}. ${told}`,
  });
}
