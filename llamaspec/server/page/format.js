/** Figures as a person reads them. What is not known is a dash. */

const DASH = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

export const number = (value, digits = 0) => (known(value) ? value.toFixed(digits) : DASH);

export const percent = (fraction) => (known(fraction) ? `${Math.round(100 * fraction)} %` : DASH);

export const rate = (perSecond) => (known(perSecond) ? `${perSecond.toFixed(1)} tok/s` : DASH);

export const times = (ratio) => (known(ratio) ? `${ratio.toFixed(2)}×` : DASH);

/** Accepted of drafted; a dash where nothing was drafted. */
export const share = (part, whole) => percent(whole > 0 ? part / whole : null);

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export function clock(unixSeconds) {
  return known(unixSeconds) ? new Date(1000 * unixSeconds).toLocaleTimeString([], { hour12: false }) : DASH;
}

const DRAFTERS = { model: "draft model", ngram: "n-gram", corpus: "corpus" };

/** The name of who proposed a token; null is the main model itself. */
export const drafterName = (drafter) => (drafter ? (DRAFTERS[drafter] ?? drafter) : "main model");

export const drafterClass = (drafter) => (drafter ? `draft-${drafter in DRAFTERS ? drafter : "other"}` : "");
