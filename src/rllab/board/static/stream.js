/* Requests whose answers are lines of JSON that come while something is computed. */
"use strict";

/** Posts a request about a run; yields what its lines have: {more}, then {end}. A failure is an Error with its text. */
async function* answers(address, run, request, signal) {
  let answer;
  try {
    answer = await fetch(`${address}?${new URLSearchParams({ run })}`, {
      method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(request),
    });
  } catch (error) {
    throw error instanceof TypeError ? new Error("the board does not answer; is it still running?") : error;
  }
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  for await (const line of linesOf(answer)) {
    if (line.error !== undefined) throw new Error(line.error);
    yield line;
  }
}

/** Yields the lines of an answer as objects, as they arrive. */
async function* linesOf(answer) {
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** An element with a text, and with properties such as className. */
function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text) made.textContent = text;
  return made;
}
