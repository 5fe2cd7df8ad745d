/** Calls to the server, with the key where one is needed. */

import { askKey, key } from "./key.js";
import { events } from "./sse.js";

/** What the server, or the way to it, had against a request. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Fetch with the key; on 401 the person is asked for one, and the request is made again. */
async function call(path, options = {}) {
  for (;;) {
    const used = key();
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server can't be reached.");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await problem(response);
    await response.body?.cancel();
    const renewed = key() !== used;
    if (!renewed && !(await askKey(used !== null))) {
      throw new ApiError("The server asks for a key.", 401);
    }
    options.signal?.throwIfAborted();
  }
}

async function problem(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // Not in the shape of the API: the status has to do.
  }
  const seconds = response.headers.get("Retry-After");
  return new ApiError(seconds ? `${message} Try again in ${seconds} s.` : message, response.status);
}

export async function stats(signal) {
  return (await call("stats", { signal })).json();
}

/** Chunks of a streamed chat completion. Raises ApiError, also where the stream breaks off. */
export async function* chat(body, signal) {
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      ...body, stream: true, stream_options: { include_usage: true }, token_details: true,
    }),
    signal,
  });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message ?? "The server failed.");
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection was lost in the middle of the answer.");
  }
  throw new ApiError("The answer broke off before its end.");
}
