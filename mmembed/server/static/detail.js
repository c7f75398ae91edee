// The dialog that shows one result in full.

import { mediaUrl, showFolder, thumbUrl } from "./api.js";
import { KINDS, codeBlock, describe, element, plays, steps } from "./cards.js";
import { hideHeat, showHeat, showMoments } from "./explain.js";

const $ = (id) => document.getElementById(id);
const dialog = $("detail");
let shownNow = null; // the result, and the words that found it

/**
 * Wire the dialog.
 * @param {{onStep: (by: number) => void, onClose: () => void, onSimilar: () => void, onFolder: () => void}} handlers
 */
export function setUp({ onStep, onClose, onSimilar, onFolder }) {
  $("close").addEventListener("click", () => dialog.close());
  $("previous").addEventListener("click", () => onStep(-1));
  $("next").addEventListener("click", () => onStep(1));
  $("similar").addEventListener("click", onSimilar);
  $("folder").addEventListener("click", onFolder);
  $("heat").addEventListener("click", toggleHeat);
  $("reveal").addEventListener("click", reveal);
  dialog.addEventListener("close", () => {
    $("stage").replaceChildren(); // stops a clip that plays
    onClose();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLVideoElement) return; // arrows seek there
    if (event.key === "ArrowLeft") onStep(-1);
    if (event.key === "ArrowRight") onStep(1);
  });
}

export const close = () => dialog.close();

async function reveal() {
  try {
    await showFolder(shownNow.result);
    $("heat-status").textContent = "The folder is open in the file manager.";
  } catch (error) {
    $("heat-status").textContent = error.message;
  }
}

async function toggleHeat() {
  const on = $("heat").getAttribute("aria-pressed") !== "true";
  $("heat").setAttribute("aria-pressed", String(on));
  if (!on) return hideHeat($("stage"), $("heat-status"));
  const { result, words } = shownNow;
  try {
    await showHeat($("stage"), result, words, $("heat-status"));
  } catch (error) {
    $("heat-status").textContent = error.message;
  }
}

/** The heat and the moments belong to the words of the query; an example has none. */
function explain(result, words) {
  $("heat").setAttribute("aria-pressed", "false");
  $("heat-status").textContent = "";
  $("heat").hidden = !words || !result.preview || result.kind === "video";
  $("moments-box").hidden = true;
  $("moments").replaceChildren();
  if (!words || !plays(result)) return;
  const still = () => shownNow.result === result;
  showMoments($("stage"), result, words, $("moments")).catch((error) => {
    if (still()) $("heat-status").textContent = error.message;
  });
}

export function show(result, { first, last, words }) {
  shownNow = { result, words };
  $("detail-name").textContent = result.name;
  const where = [KINDS[result.kind], result.folder, result.breadcrumb].filter(Boolean);
  $("detail-where").textContent = where.join(" · ");
  $("stage").replaceChildren(stageOf(result));
  $("stage").classList.toggle("is-code", result.kind === "code" || !result.preview);
  $("similar").hidden = result.kind === "code";
  $("folder").hidden = !result.folder || result.folder === ".";
  explain(result, words);
  $("reveal").hidden = !result.preview;
  $("original").hidden = !result.media_type;
  if (result.media_type) {
    $("original").href = mediaUrl(result) + (result.page ? `#page=${result.page}` : "");
  }
  fill("detail-scores", steps(result).map(([name, value]) => [name, value.toFixed(4)]));
  const metadata = Object.entries(result.metadata).filter(([, value]) => value !== null);
  fill("detail-metadata", metadata.map(([name, value]) => [name, [value].flat().join(", ")]));
  $("detail-metadata-box").hidden = metadata.length === 0;
  $("detail-text").textContent = flowing(result);
  $("detail-text-box").hidden = !result.text || !result.preview;
  $("previous").disabled = first;
  $("next").disabled = last;
  if (!dialog.open) dialog.showModal();
}

/** A page's text layer breaks its lines where the page did, which says nothing here. */
function flowing({ kind, text }) {
  return kind === "document" ? text.replace(/(\S)\r?\n(?=\S)/g, "$1 ") : text;
}

function stageOf(result) {
  if (result.kind === "code") return codeBlock(result);
  if (!result.preview) return element("p", { className: "text", textContent: result.text });
  if (plays(result)) {
    const video = element("video", {
      src: mediaUrl(result), poster: thumbUrl(result, "large"), controls: true, loop: true,
      muted: true, playsInline: true,
    });
    video.setAttribute("aria-label", describe(result));
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.autoplay = true;
    return video;
  }
  return element("img", { src: thumbUrl(result, "large"), alt: describe(result) });
}

function fill(id, pairs) {
  $(id).replaceChildren(
    ...pairs.flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value }),
    ]),
  );
}
