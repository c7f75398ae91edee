// The server's routes. Errors carry the server's own sentence.

async function answer(response) {
  if (response.ok) return response.json();
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not one of our errors: something between the page and the server answered.
  }
  throw new Error(message);
}

export async function info() {
  return answer(await fetch("/api/info"));
}

/** Search by text, by image, by both, or for more like a result. */
export async function search({ q, like, image, show, k, filter, rerank }, signal) {
  if (image) {
    const form = new FormData();
    form.set("image", image, image.name || "pasted image");
    form.set("modality", show);
    form.set("k", String(k));
    if (q) form.set("q", q);
    if (filter) form.set("filter", filter);
    if (rerank) form.set("rerank", "true");
    return answer(await fetch("/api/search", { method: "POST", body: form, signal }));
  }
  const query = new URLSearchParams({ k: String(k), modality: show });
  query.set(like ? "like" : "q", like || q);
  if (filter) query.set("filter", filter);
  if (rerank) query.set("rerank", "true");
  return answer(await fetch(`/api/search?${query}`, { signal }));
}

export const mediaUrl = (result) => `/api/media/${result.id}`;
export const thumbUrl = (result, size = "small") => `/api/media/${result.id}/thumb?size=${size}`;

const about = async (result, what, words) =>
  answer(await fetch(`/api/media/${result.id}/${what}?${new URLSearchParams({ q: words })}`));
export const heat = (result, words) => about(result, "heat", words);
export const moments = (result, words) => about(result, "moments", words);

export async function showFolder(result) {
  const response = await fetch(`/api/media/${result.id}/folder`, { method: "POST" });
  if (!response.ok) await answer(response);
}

export const map = async () => answer(await fetch("/api/map"));

export const indexing = async () => answer(await fetch("/api/index"));
export const stopIndexing = async () => answer(await fetch("/api/index", { method: "DELETE" }));
export async function startIndexing(root, folder) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify({ root, folder });
  return answer(await fetch("/api/index", { method: "POST", headers, body }));
}
