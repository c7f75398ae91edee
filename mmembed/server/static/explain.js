// Where a photo or page fits the words, and when a clip does.

import * as api from "./api.js";
import { element, shown } from "./cards.js";

const PLACES = [
  ["upper left", "top", "upper right"],
  ["left", "middle", "right"],
  ["lower left", "bottom", "lower right"],
];

/** Lay the heat of `words` over the picture in `stage`; says in `status` where it is greatest. */
export async function showHeat(stage, result, words, status) {
  const image = stage.querySelector("img");
  status.textContent = "Looking…";
  const { rows, columns, values } = await api.heat(result, words);
  if (!image?.isConnected) return;
  await image.decode().catch(() => {});
  const canvas = element("canvas", { className: "heat", width: image.naturalWidth, height: image.naturalHeight });
  canvas.setAttribute("aria-hidden", "true"); // the sentence below says it
  paint(canvas, rows, columns, values);
  stage.querySelector(".heat")?.remove();
  stage.append(canvas);
  const flat = values.flat();
  const best = flat.indexOf(Math.max(...flat));
  const third = (at, of) => Math.min(2, Math.floor((3 * (at + 0.5)) / of));
  const place = PLACES[third(Math.floor(best / columns), rows)][third(best % columns, columns)];
  status.textContent = `Fits best at the ${place} (${shown(flat[best])}).`;
}

export function hideHeat(stage, status) {
  stage.querySelector(".heat")?.remove();
  status.textContent = "";
}

/** Warm where it fits; only differences within the picture are shown. */
function paint(canvas, rows, columns, values) {
  const flat = values.flat();
  const [low, high] = [Math.min(...flat), Math.max(...flat)];
  const small = element("canvas", { width: columns, height: rows });
  const context = small.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  flat.forEach((value, i) => {
    const heat = high > low ? (value - low) / (high - low) : 0;
    pixels.data.set([...warmth(heat), 165], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  const large = canvas.getContext("2d");
  large.imageSmoothingEnabled = true;
  large.imageSmoothingQuality = "high";
  large.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// From night blue over red to yellow, by which one knows it on any picture, and in grey.
const RAMP = [[8, 10, 60], [110, 25, 110], [220, 60, 50], [252, 150, 20], [255, 240, 110]];

function warmth(heat) {
  const at = heat * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((value, i) => value + (at - low) * (RAMP[low + 1][i] - value));
}

/** Buttons that go to the best moments of the clip in `stage`, which starts at the best of them. */
export async function showMoments(stage, result, words, box) {
  const { seconds, values, best } = await api.moments(result, words);
  const video = stage.querySelector("video");
  if (!video?.isConnected) return;
  const go = (time) => {
    video.currentTime = time;
  };
  const order = seconds.map((_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, 3);
  const buttons = order.map((i) => {
    const button = element("button", {
      type: "button", textContent: `${clock(seconds[i])} · ${shown(values[i])}`,
    });
    button.addEventListener("click", () => go(seconds[i]));
    return element("li", {}, button);
  });
  box.replaceChildren(curve(values), element("ol", { className: "moments" }, ...buttons));
  box.parentElement.hidden = false;
  if (video.readyState > 0) go(best);
  else video.addEventListener("loadedmetadata", () => go(best), { once: true });
}

/** The similarity along the clip, for the eye; the buttons say the same to a screen reader. */
function curve(values) {
  const space = document.querySelector("svg").namespaceURI;
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "curve");
  svg.setAttribute("aria-hidden", "true");
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const line = document.createElementNS(space, "polyline");
  const points = values.map((value, i) => {
    const x = values.length > 1 ? (100 * i) / (values.length - 1) : 50;
    return `${x.toFixed(1)},${(22 - (20 * (value - low)) / (high - low || 1)).toFixed(1)}`;
  });
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
