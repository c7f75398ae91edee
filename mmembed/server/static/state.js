// What the address bar holds: the query, the tab, filters, the minimum, the view, the open result.

const DEFAULTS = {
  q: "", like: "", show: "all", min: 0, open: -1, filter: "", rerank: false, view: "grid",
};

/** The state that the query string describes. */
export function readState() {
  const query = new URLSearchParams(location.search);
  const min = Number(query.get("min") ?? DEFAULTS.min);
  const open = Number(query.get("open") ?? 0) - 1;
  return {
    q: query.get("q") ?? DEFAULTS.q,
    like: query.get("like") ?? DEFAULTS.like,
    show: query.get("show") ?? DEFAULTS.show,
    min: Number.isFinite(min) ? Math.min(1, Math.max(0, min)) : DEFAULTS.min,
    open: Number.isInteger(open) ? open : DEFAULTS.open,
    filter: query.get("filter") ?? DEFAULTS.filter,
    rerank: query.get("rerank") === "1",
    view: query.get("view") === "map" ? "map" : "grid",
  };
}

/** Put the state into the address bar; `push` makes a step that the back button undoes. */
export function writeState(state, { push = false } = {}) {
  const query = new URLSearchParams();
  if (state.q) query.set("q", state.q);
  if (state.like) query.set("like", state.like);
  if (state.show !== DEFAULTS.show) query.set("show", state.show);
  if (state.filter) query.set("filter", state.filter);
  if (state.rerank) query.set("rerank", "1");
  if (state.view === "map") query.set("view", "map");
  if (state.min > 0) query.set("min", state.min.toFixed(2));
  if (state.open >= 0) query.set("open", String(state.open + 1));
  const address = query.size ? `?${query}` : location.pathname;
  if (address === (location.search || location.pathname)) return;
  history[push ? "pushState" : "replaceState"](null, "", address);
}
