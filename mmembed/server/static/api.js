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
export async function search({ q, like, image, show, k }, signal) {
  if (image) {
    const form = new FormData();
    form.set("image", image, image.name || "pasted image");
    form.set("modality", show);
    form.set("k", String(k));
    if (q) form.set("q", q);
    return answer(await fetch("/api/search", { method: "POST", body: form, signal }));
  }
  const query = new URLSearchParams({ k: String(k), modality: show });
  query.set(like ? "like" : "q", like || q);
  return answer(await fetch(`/api/search?${query}`, { signal }));
}

export const mediaUrl = (result) => `/api/media/${result.id}`;
export const thumbUrl = (result, size = "small") => `/api/media/${result.id}/thumb?size=${size}`;
