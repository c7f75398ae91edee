// Bringing a folder into the index, with progress and a way to stop.

import * as api from "./api.js";
import { element } from "./cards.js";

const $ = (id) => document.getElementById(id);
const dialog = $("indexing");
let changed = () => {};

/** @param {() => void} onChange called when a run has ended */
export async function setUp(onChange) {
  changed = onChange;
  $("add-folder").hidden = false;
  $("add-folder").addEventListener("click", () => dialog.showModal());
  $("indexing-close").addEventListener("click", () => dialog.close());
  $("indexing-stop").addEventListener("click", async () => show(await api.stopIndexing()));
  $("indexing-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      show(await api.startIndexing($("indexing-root").value, $("indexing-folder").value.trim()));
      watch();
    } catch (error) {
      $("indexing-problem").textContent = error.message;
      $("indexing-problem").hidden = false;
    }
  });
  const state = await api.indexing();
  $("indexing-root").replaceChildren(
    ...state.roots.map((name) => element("option", { value: name, textContent: name })),
  );
  show(state);
  if (state.state === "running") watch();
}

async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, 400));
    const state = await api.indexing();
    show(state);
    if (state.state === "running") continue;
    return changed();
  }
}

function show(state) {
  const running = state.state === "running";
  $("indexing-bar").hidden = !running;
  $("indexing-stop").hidden = !running;
  $("indexing-start").disabled = running;
  $("indexing-problem").hidden = !state.problem;
  $("indexing-problem").textContent = state.problem;
  const counts = ["added", "updated", "unchanged", "deleted"]
    .filter((name) => state[name] || name === "added")
    .map((name) => `${state[name].toLocaleString("en")} ${name}`);
  if (state.skipped_count) counts.push(`${state.skipped_count} skipped`);
  const heads = { running: "Indexing", done: "Done with", cancelled: "Stopped in", failed: "Failed in" };
  $("indexing-status").textContent =
    state.state === "idle" ? "" : `${heads[state.state]} ${state.folder}: ${counts.join(", ")}`;
  $("indexing-skipped").replaceChildren(
    ...state.skipped.map(({ name, reason }) => element("li", { textContent: `${name}: ${reason}` })),
  );
}
