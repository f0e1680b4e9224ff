/* The page of a chat: replies come while they are sampled. What models write is shown as text alone. */
"use strict";

const by = (id) => document.getElementById(id);
const log = by("log"), run = log.dataset.run, problem = by("problem");

let messages = { model: [], base: [] }; // the conversation of each
let asked = null; // ends the requests in progress

/** Shows the parts of a reply; those that are there already are changed, so that thinking that was opened stays open. */
function fill(place, parts, ended) {
  parts.forEach(([thinking, text], i) => {
    let node = place.children[i];
    if (!node || node.matches("details") !== thinking) {
      node = thinking ? element("details", "", { className: "thinking" }) : element("div");
      if (thinking) node.append(element("summary"), element("div"));
      while (place.children.length > i) place.lastChild.remove();
      place.append(node);
    }
    if (!thinking) { node.textContent = text.trim(); return; }
    const closed = ended || i + 1 < parts.length;
    node.firstChild.textContent = `${closed ? "thought" : "thinks"}, ${text.split(/\s+/).filter(Boolean).length} words`;
    node.lastChild.textContent = text.trim();
  });
  while (place.children.length > parts.length) place.lastChild.remove();
}

/** A place for the reply of `who` in a turn. */
function bubble(turn, who, name) {
  const article = element("article", "", { className: "bubble" }), text = element("div", "", { className: "text" });
  article.append(element("span", name, { className: "label" }), text);
  article.dataset.who = who;
  turn.append(article);
  return text;
}

/** Lets one model reply; returns whether it did. */
async function replyOf(who, said, place, own) {
  const step = by("checkpoint").value, conversation = [...messages[who], { role: "user", content: said }];
  const request = {
    messages: conversation, base: who === "base", style: by("style").value, max_new_tokens: Number(by("tokens").value),
    checkpoint: step ? Number(step) : null,
  };
  let text = "";
  try {
    for await (const line of answers("reply", run, request, own.signal)) {
      const part = line.more || line.end;
      if (!part) continue;
      text = part.text;
      by("state").textContent = `the ${who} writes …`;
      fill(place, part.parts, Boolean(line.end));
    }
    if (!text) place.append(element("div", "(empty)", { className: "muted" }));
  } catch (error) {
    if (error.name !== "AbortError") {
      place.append(element("div", error.message, { className: "bad" }));
      problem.textContent = error.message;
      return false;
    }
    place.append(element("div", "(stopped)", { className: "muted" }));
  }
  messages[who] = [...conversation, { role: "assistant", content: text }];
  return true;
}

async function send() {
  const said = by("text").value.trim();
  if (!said || asked) return;
  const own = (asked = new AbortController());
  problem.textContent = "";
  by("empty").hidden = true;
  [by("send").disabled, by("stop").disabled] = [true, false];
  by("text").value = "";
  by("state").textContent = "the model is loaded …";
  log.setAttribute("aria-busy", "true");
  const turn = element("div", "", { className: "turn" }), mine = element("article", "", { className: "bubble mine" });
  mine.append(element("span", "you", { className: "label" }), element("div", said, { className: "text" }));
  const replies = element("div", "", { className: "replies" });
  turn.append(mine, replies);
  log.append(turn);
  const places = { model: bubble(replies, "model", "model") };
  if (by("base").checked) places.base = bubble(replies, "base", "base");
  turn.scrollIntoView({ block: "nearest" });
  let good = true;
  for (const [who, place] of Object.entries(places)) {
    if (own.signal.aborted) { place.append(element("div", "(stopped)", { className: "muted" })); continue; }
    good = (await replyOf(who, said, place, own)) && good;
  }
  if (own !== asked) return; // a new conversation has begun
  if (!good) by("text").value = said;
  asked = null;
  log.removeAttribute("aria-busy");
  [by("send").disabled, by("stop").disabled] = [false, true];
  by("state").textContent = "";
  turn.scrollIntoView({ block: "nearest" });
  by("text").focus({ preventScroll: true });
}

/** Forgets the conversation. */
function begin() {
  if (asked) asked.abort();
  asked = null;
  messages = { model: [], base: [] };
  for (const turn of log.querySelectorAll(".turn")) turn.remove();
  by("empty").hidden = false;
  [by("send").disabled, by("stop").disabled] = [false, true];
  problem.textContent = by("state").textContent = "";
  log.removeAttribute("aria-busy");
}

by("say").addEventListener("submit", (event) => { event.preventDefault(); send(); });
by("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
by("stop").addEventListener("click", () => { if (asked) asked.abort(); });
by("new").addEventListener("click", begin);
by("checkpoint").addEventListener("change", begin);
