// The page: what was asked, what was found, and how the two follow the address bar.

import * as api from "./api.js";
import { card } from "./cards.js";
import * as detail from "./detail.js";
import * as indexing from "./indexing.js";
import * as map from "./map.js";
import { readState, writeState } from "./state.js";

const RESULTS = 60;
const MEDIA_BEFORE_CODE = 10;
const MAX_IMAGE_BYTES = 20e6;
const TABS = [
  ["all", "All"], ["image", "Photos"], ["document", "Pages"],
  ["video", "Clips"], ["text", "Texts"], ["code", "Code"],
];

const $ = (id) => document.getElementById(id);
const input = $("q");
const grid = $("results");

let state = readState();
let image = null; // the query image; it cannot be in the address bar
let found = []; // all results of the last search
let visible = []; // those that reach the minimum
let tookMs = 0;
let running = null;

// --- searching ----------------------------------------------------------------------------------

const hasQuery = () => Boolean(image || state.q.trim() || state.like);

async function search() {
  running?.abort();
  document.body.classList.toggle("start", !hasQuery() && state.view === "grid");
  $("problem").hidden = true;
  if (!hasQuery()) {
    found = [];
    return render();
  }
  const mine = (running = new AbortController());
  document.body.classList.add("busy");
  try {
    const { like, show, rerank } = state;
    const q = state.q.trim();
    const asked = { q, like, image, show, rerank, filter: state.filter.trim(), k: RESULTS };
    const answer = await api.search(asked, mine.signal);
    found = state.show === "all" ? arranged(answer.results) : answer.results;
    tookMs = answer.took_ms;
    render();
  } catch (error) {
    if (mine.signal.aborted) return;
    found = [];
    render();
    complain(error.message);
  } finally {
    if (running === mine) document.body.classList.remove("busy");
  }
}

/** Code goes before media where it fits the query better, and otherwise after the best of them. */
function arranged(results) {
  const code = results.filter(({ kind }) => kind === "code");
  const media = results.filter(({ kind }) => kind !== "code");
  const best = (list) => Math.max(...list.map(({ similarity }) => similarity ?? -1));
  const at = best(code) > best(media) ? 0 : MEDIA_BEFORE_CODE;
  return [...media.slice(0, at), ...code, ...media.slice(at)];
}

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = false;
  $("status").textContent = "";
}

function change(changes, { push = true } = {}) {
  state = { ...state, open: -1, ...changes };
  writeState(state, { push });
  showControls();
  search();
}

// --- showing ------------------------------------------------------------------------------------

function render() {
  // At 0 there is no minimum: cosines may be negative. Without one, words have found the result.
  const reaches = (result) => !state.min || (result.similarity ?? 1) >= state.min;
  visible = found.filter(reaches);
  grid.replaceChildren(...visible.map(card));
  $("status").textContent = hasQuery() ? summary() : "";
  showView();
  if (state.open >= 0) openResult(state.open);
}

async function showView() {
  $("view").setAttribute("aria-pressed", String(state.view === "map"));
  grid.hidden = state.view === "map";
  if (state.view === "grid") return map.hide();
  try {
    await map.show(visible.map(({ id }) => id));
  } catch (error) {
    complain(error.message);
  }
}

function summary() {
  if (!found.length) return "Nothing found.";
  const time = `in ${Math.round(tookMs)} ms`;
  if (visible.length === found.length) {
    return `${found.length} ${found.length === 1 ? "result" : "results"} ${time}`;
  }
  return `${visible.length} of ${found.length} results at ${state.min.toFixed(2)} or above, ${time}`;
}

function showControls() {
  if (input.value !== state.q) input.value = state.q;
  $("minimum").value = String(state.min);
  $("minimum-value").textContent = state.min.toFixed(2);
  if (document.activeElement !== $("filter")) $("filter").value = state.filter;
  $("rerank").checked = state.rerank;
  showTab();
  $("chip").hidden = !image && !state.like;
  const url = image ? image.url : state.like ? `/api/media/${state.like}/thumb` : "";
  if (url) $("chip-image").src = url;
  else $("chip-image").removeAttribute("src");
  $("chip-name").textContent = image ? image.name : "more like this";
}

function showTab() {
  for (const tab of $("tabs").children) {
    tab.setAttribute("aria-pressed", String(tab.dataset.show === state.show));
  }
}

function openResult(position) {
  const result = visible[position];
  if (!result) return;
  state.open = position;
  writeState(state);
  const ends = { first: position === 0, last: position === visible.length - 1 };
  detail.show(result, { ...ends, words: state.q.trim() });
}

detail.setUp({
  onStep: (by) => openResult(state.open + by),
  onClose: () => {
    grid.children[state.open]?.firstChild.focus();
    state.open = -1;
    writeState(state);
  },
  onSimilar: () => {
    const { id } = visible[state.open];
    detail.close();
    setImage(null);
    change({ q: "", like: id });
  },
  onFolder: () => {
    const { folder } = visible[state.open];
    detail.close();
    change({ filter: `path like ${JSON.stringify(`*${folder}/*`)}` });
  },
});

map.setUp(({ id }) => {
  setImage(null);
  change({ q: "", like: id, view: "grid" });
});
$("view").addEventListener("click", () => {
  change({ view: state.view === "map" ? "grid" : "map" });
});
$("filter").addEventListener("change", ({ target }) => change({ filter: target.value }));
$("rerank").addEventListener("change", ({ target }) => change({ rerank: target.checked }));

// --- asking -------------------------------------------------------------------------------------

function setImage(file) {
  if (image) URL.revokeObjectURL(image.url);
  image = file && Object.assign(file, { url: URL.createObjectURL(file) });
}

function askByImage(files) {
  const file = [...files].find((each) => each.type.startsWith("image/"));
  if (!file) return complain(`${files[0]?.name ?? "That"}: is not an image`);
  if (file.size > MAX_IMAGE_BYTES) return complain(`${file.name}: is larger than 20 MB`);
  setImage(file);
  change({ like: "" });
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  change({ q: input.value, like: "" });
});
input.addEventListener("search", () => {
  if (!input.value && state.q) change({ q: "" });
});
$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) askByImage(target.files);
  target.value = "";
});
$("photograph").addEventListener("click", () => $("camera").click());
$("camera").addEventListener("change", ({ target }) => {
  if (target.files.length) askByImage(target.files);
  target.value = "";
});
$("chip-remove").addEventListener("click", () => {
  setImage(null);
  change({ like: "" });
  input.focus();
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) askByImage(event.clipboardData.files);
});

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  $("drop").hidden = true;
  if (!carriesFiles(event)) return;
  event.preventDefault();
  askByImage(event.dataTransfer.files);
});

$("minimum").addEventListener("input", ({ target }) => {
  state.min = Number(target.value);
  state.open = -1;
  $("minimum-value").textContent = state.min.toFixed(2);
  writeState(state);
  render();
});

// --- keys ---------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("detail").open) return;
  if ($("indexing").open) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    input.focus();
    input.select();
  } else if (event.key === "ArrowDown" && event.target === input && visible.length) {
    event.preventDefault();
    focusCard(0);
  }
});

grid.addEventListener("keydown", (event) => {
  const here = Number(event.target.dataset.position ?? -1);
  if (here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = {
    ArrowLeft: here - 1,
    ArrowRight: here + 1,
    ArrowUp: vertical(here, -1),
    ArrowDown: vertical(here, 1),
    Home: 0,
    End: visible.length - 1,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  if (target < 0) input.focus();
  else focusCard(target);
});
grid.addEventListener("click", (event) => {
  const button = event.target.closest("button.card");
  if (button) openResult(Number(button.dataset.position));
});

function focusCard(position) {
  grid.children[Math.min(position, visible.length - 1)]?.firstChild.focus();
}

/** The nearest card in the next row up or down; -1 above the first row. */
function vertical(from, direction) {
  const boxes = [...grid.children].map((child) => child.getBoundingClientRect());
  const middle = (boxes[from].left + boxes[from].right) / 2;
  const rows = boxes
    .map((box, position) => ({ box, position, gap: (box.top - boxes[from].top) * direction }))
    .filter(({ gap }) => gap > 1);
  if (!rows.length) return direction < 0 ? -1 : from;
  const nearest = Math.min(...rows.map(({ gap }) => gap));
  const away = ({ box }) => Math.abs((box.left + box.right) / 2 - middle);
  return rows
    .filter(({ gap }) => gap < nearest + 2)
    .reduce((best, row) => (away(row) < away(best) ? row : best)).position;
}

// --- starting -----------------------------------------------------------------------------------

/** "297 photos, 26 pages and code" */
function contents({ modalities, code }) {
  const parts = TABS.filter(([show]) => modalities[show]).map(([show, label]) => {
    const count = modalities[show];
    const word = label.toLowerCase();
    return `${count.toLocaleString("en")} ${count === 1 ? word.replace(/s$/, "") : word}`;
  });
  if (code) parts.push("code");
  return new Intl.ListFormat("en").format(parts) || "Nothing indexed";
}

function makeTabs({ modalities, code, items }) {
  const counts = { all: items, ...modalities };
  const has = (show) => show === "all" || (show === "code" ? code : counts[show] > 0);
  $("tabs").replaceChildren();
  for (const [show, label] of TABS.filter(([name]) => has(name))) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.dataset.show = show;
    tab.textContent = label;
    if (counts[show] !== undefined) {
      const count = document.createElement("span");
      count.textContent = counts[show].toLocaleString("en");
      tab.append(" ", count);
    }
    tab.addEventListener("click", () => change({ show }));
    $("tabs").append(tab);
  }
}

addEventListener("popstate", () => {
  state = readState();
  if (state.open < 0) detail.close();
  setImage(null);
  showControls();
  search();
});

showControls();
search();
if (!hasQuery()) input.focus();

async function showCollection() {
  const about = await api.info();
  makeTabs(about);
  showTab();
  $("collection").textContent = `${contents(about)}, embedded with ${about.model.name}`;
  $("rerank-box").hidden = !about.steps.reranker;
  $("folders").hidden = !about.folders;
  return about;
}

try {
  const about = await showCollection();
  if (about.indexing) {
    await indexing.setUp(async () => {
      map.forget();
      await showCollection();
      search();
    });
  }
} catch (error) {
  complain(error.message);
}
