// The collection as points in a plane: like lies beside like.

import * as api from "./api.js";
import { thumbUrl } from "./api.js";
import { KINDS, element } from "./cards.js";

const [WIDTH, HEIGHT, EDGE] = [1000, 600, 24];
const box = document.getElementById("map");
const plot = document.getElementById("map-plot");
const SPACE = plot.namespaceURI;
const preview = document.getElementById("map-preview");
let points = null;
let dots = [];
let choose = () => {};

/** @param {(point: object) => void} onChoose called with the point that was chosen */
export function setUp(onChoose) {
  choose = onChoose;
  plot.addEventListener("pointerover", ({ target }) => look(dots.indexOf(target)));
  plot.addEventListener("focusin", ({ target }) => look(dots.indexOf(target)));
  plot.addEventListener("click", ({ target }) => pick(dots.indexOf(target)));
  plot.addEventListener("keydown", (event) => {
    const at = dots.indexOf(event.target);
    if (at < 0) return;
    const ways = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    };
    if (event.key === "Enter" || event.key === " ") pick(at);
    else if (event.key in ways) focus(towards(at, ...ways[event.key]));
    else return;
    event.preventDefault();
  });
}

/** Show the map; `found` are ids of results, which stand out. */
export async function show(found) {
  box.hidden = false;
  if (!points) {
    document.getElementById("map-about").textContent = "Drawing…";
    const answer = await api.map();
    points = answer.points;
    document.getElementById("map-about").textContent =
      points.length < answer.items
        ? `${points.length.toLocaleString("en")} of ${answer.items.toLocaleString("en")} items; like lies beside like.`
        : `${points.length.toLocaleString("en")} items; like lies beside like.`;
    draw();
  }
  const ids = new Set(found);
  dots.forEach((dot, i) => dot.classList.toggle("found", ids.has(points[i].id)));
}

export function hide() {
  box.hidden = true;
}

/** After the index has changed. */
export function forget() {
  points = null;
}

function draw() {
  dots = points.map((point) => {
    const dot = document.createElementNS(SPACE, "circle");
    dot.setAttribute("cx", String(EDGE + point.x * (WIDTH - 2 * EDGE)));
    dot.setAttribute("cy", String(EDGE + (1 - point.y) * (HEIGHT - 2 * EDGE)));
    dot.setAttribute("r", "6");
    dot.setAttribute("class", point.kind);
    dot.setAttribute("role", "button");
    dot.setAttribute("tabindex", "-1");
    dot.setAttribute("aria-label", `${KINDS[point.kind]} ${point.name}: find similar`);
    return dot;
  });
  dots[0]?.setAttribute("tabindex", "0"); // one stop; arrows walk from there
  plot.replaceChildren(...dots);
  preview.hidden = true;
}

function look(at) {
  if (at < 0) return;
  const point = points[at];
  const parts = [element("p", { textContent: `${KINDS[point.kind]} · ${point.name}` })];
  if (point.preview) parts.unshift(element("img", { src: thumbUrl(point), alt: "" }));
  preview.replaceChildren(...parts);
  preview.hidden = false;
  preview.classList.toggle("left", point.x > 0.5);
}

function pick(at) {
  if (at >= 0) choose(points[at]);
}

function focus(at) {
  if (at < 0) return;
  for (const dot of dots) dot.setAttribute("tabindex", "-1");
  dots[at].setAttribute("tabindex", "0");
  dots[at].focus();
}

/** The nearest dot within 45 degrees of a direction, or -1. */
function towards(from, right, down) {
  const place = ({ x, y }) => [x * WIDTH, (1 - y) * HEIGHT];
  const [x, y] = place(points[from]);
  let [best, shortest] = [-1, Infinity];
  points.forEach((point, i) => {
    const [px, py] = place(point);
    const along = (px - x) * right + (py - y) * down;
    const across = Math.abs((px - x) * down) + Math.abs((py - y) * right);
    const far = along + across;
    if (i !== from && along > 0 && across <= along && far < shortest) [best, shortest] = [i, far];
  });
  return best;
}
