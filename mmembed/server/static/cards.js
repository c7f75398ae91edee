// One result as a card of the grid.

import { mediaUrl, thumbUrl } from "./api.js";

export const KINDS = {
  image: "Photo", document: "Page", video: "Clip", text: "Text", code: "Code",
};
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** A new element with properties and children; text is never read as markup. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** A similarity as the page shows it everywhere. */
export const shown = (score) => (score === null ? "" : score.toFixed(2));

/** What a screen reader says about a result. */
export function describe(result) {
  const text = result.text.replace(/\s+/g, " ").trim();
  const about = result.kind === "code" ? (result.breadcrumb || result.symbol || "") : text;
  return `${KINDS[result.kind]} ${result.name}${about ? `: ${about.slice(0, 160)}` : ""}`;
}

/** The steps of the search, in the order they ran, as [name, score]. */
export function steps(result) {
  const names = { dense: "similarity", text: "words", lexical: "words", rrf: "fused" };
  const known = Object.keys(names).filter((name) => name in result.scores);
  const others = Object.keys(result.scores).filter((name) => !(name in names));
  return [...known, ...others].map((name) => [names[name] ?? name, result.scores[name]]);
}

/** Code with its line numbers, as many lines as asked for. */
export function codeBlock(result, limit = Infinity) {
  const list = element("ol", { className: "code", start: result.start_line ?? 1 });
  const lines = result.text.replace(/\n$/, "").split("\n").slice(0, limit);
  lines.forEach((line, i) => {
    const row = element("li", {}, element("code", { textContent: line || " " }));
    row.dataset.line = String((result.start_line ?? 1) + i);
    list.append(row);
  });
  return list;
}

/** Whether a browser plays the result's own file. */
export const plays = (result) => result.kind === "video" && result.media_type?.startsWith("video/");

export function card(result, position) {
  const face = element("div", { className: `face ${result.kind}` });
  if (result.kind === "code") {
    face.append(codeBlock(result, 11));
    face.setAttribute("aria-hidden", "true"); // the name says it; the dialog reads it out
  } else if (result.preview) {
    face.append(picture(result));
  } else {
    face.append(element("p", { className: "excerpt", textContent: result.text.slice(0, 320) }));
  }
  const badge = badgeOf(result);
  if (badge) face.append(element("span", { className: "badge", textContent: badge }));

  const title = element("span", { className: "name", textContent: titleOf(result) });
  title.title = result.name;
  const score = element(
    "span",
    { className: "score" },
    element("span", { className: "visually-hidden", textContent: "similarity " }),
    shown(result.similarity),
  );
  const rest = steps(result).filter(([name]) => name !== "similarity");
  const parts = rest.map(([name, value]) => `${name} ${short(value)}`);
  const stepText = [result.language, ...parts].filter(Boolean).join(" · ");
  const meter = element("span", { className: "meter", ariaHidden: "true" }, element("span"));
  meter.firstChild.style.width = `${Math.max(0, Math.min(1, result.similarity ?? 0)) * 100}%`;
  const foot = element(
    "div",
    { className: "foot" },
    element("div", { className: "line" }, title, score),
    meter,
    element("div", { className: "steps", textContent: stepText || KINDS[result.kind] }),
  );

  const button = element("button", { type: "button", className: "card" }, face, foot);
  button.dataset.position = String(position);
  const item = element("li", { className: result.kind === "code" ? "wide" : "" }, button);
  if (plays(result)) animate(button, face, result);
  return item;
}

function picture(result) {
  const image = element("img", {
    src: thumbUrl(result), alt: describe(result), loading: "lazy", decoding: "async",
  });
  image.addEventListener("error", () => {
    image.replaceWith(element("p", { className: "excerpt", textContent: "No preview" }));
  });
  return image;
}

function titleOf(result) {
  if (result.kind === "code") return result.name;
  return result.page === null ? result.name : result.name.replace(/, page \d+$/, "");
}

function badgeOf(result) {
  if (result.kind === "document") return `Page ${result.page}`;
  return result.kind === "image" || result.kind === "code" ? "" : KINDS[result.kind];
}

function short(value) {
  return Math.abs(value) < 1 ? value.toFixed(3) : value.toFixed(1);
}

/** Play a clip while it is pointed at or focused, and not where motion is unwanted. */
function animate(button, face, result) {
  let video = null;
  const start = () => {
    if (video || still.matches) return;
    video = element("video", { src: mediaUrl(result), muted: true, loop: true, playsInline: true });
    video.setAttribute("aria-hidden", "true");
    video.addEventListener("playing", () => video?.classList.add("playing"));
    face.append(video);
    video.play().catch(() => stop());
  };
  const stop = () => {
    video?.remove();
    video = null;
  };
  for (const name of ["pointerenter", "focus"]) button.addEventListener(name, start);
  for (const name of ["pointerleave", "blur"]) button.addEventListener(name, stop);
}
