/* The page on which people label: it shows a pair, sends the choice, and shows the next pair when the choice is saved. */
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const who = at("who"), problem = at("problem"), progress = at("progress"), prompt = at("prompt"), again = at("again");
  const sides = [at("left"), at("right")], buttons = [...document.querySelectorAll(".choices button")];
  const KEYS = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", t: "tie", s: "skip", u: "undo", r: "again" };

  let item = null; // what is shown
  let busy = false; // a request is under way
  let unsent = null; // a choice that was not confirmed; it is sent again with the same id, and counts once
  let film = 0; // the number of the clips that play; older ones end

  /** A new id of a label. */
  function newId() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Asks the board, and shows its answer. A choice that fails is kept, and can be sent again. */
  async function ask(request) {
    if (busy) return;
    if (!who.value.trim()) {
      problem.textContent = "first write your name";
      who.focus();
      return;
    }
    setBusy(true);
    if (request.id) unsent = request;
    try {
      const answer = await fetch("label.json", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...request, who: request.who || who.value }),
      });
      if (!answer.ok) throw new Error(await answer.text());
      unsent = null;
      problem.textContent = "";
      show(await answer.json(), request.do === "undo");
    } catch (error) {
      const reason = error instanceof TypeError ? "the board does not answer; is it still running?" : error.message;
      problem.textContent = unsent ? `the last choice is not saved yet: ${reason}. Choose again to send it again.` : reason;
    }
    setBusy(false);
  }

  function setBusy(now) {
    busy = now;
    for (const button of buttons) button.disabled = now || (!item?.pair && !["choose-undo", "again"].includes(button.id));
    document.body.dataset.state = now ? "busy" : "ready";
  }

  /** Shows a pair, or that there is none left. */
  function show(next, undone) {
    item = next;
    const { done, left, pairs } = item.progress;
    progress.textContent = `${done} judged by you, ${left} left, ${pairs} pairs`;
    if (undone && !item.undone) progress.textContent += "; there is nothing to undo";
    film++;
    prompt.replaceChildren(...(item.prompt || []).map(message));
    prompt.hidden = !item.prompt || !item.prompt.length;
    for (const [i, side] of sides.entries()) side.replaceChildren(...(item.pair ? shown(item.sides[i], i) : []));
    again.hidden = true;
    if (!item.pair) progress.textContent += ". All pairs are judged: thank you.";
    else if (!Array.isArray(item.sides[0])) playFilm();
  }

  function message({ role, text }) {
    const made = element("div", "message");
    made.append(element("span", "label", role), element("div", "text", text));
    return made;
  }

  /** The elements of a side: its heading, and the parts of an answer, thinking folded, or the canvas of a clip. */
  function shown(side, i) {
    const heading = element("h2", "", i ? "right" : "left");
    if (!Array.isArray(side)) {
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `clip on the ${i ? "right" : "left"}`);
      return [heading, canvas];
    }
    return [heading, ...side.map(({ thinking, text }) => (thinking ? folded(text) : element("div", "text", text)))];
  }

  function folded(text) {
    const details = element("details"), inside = element("div", "thinking");
    inside.append(element("div", "text", text));
    details.append(element("summary", "", "thinking"), inside);
    return details;
  }

  /** Plays both clips at once, again and again with a pause; once where less motion is wished for. */
  async function playFilm() {
    const own = ++film, clips = item.sides;
    const canvases = sides.map((side) => side.querySelector("canvas"));
    const images = await Promise.all(clips.map((clip) => Promise.all((clip.images || []).map(loaded))));
    const count = Math.max(...clips.map((clip) => (clip.states || clip.images).length));
    const pause = 1000 / Math.min(clips[0].fps || 30, 30);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    again.hidden = false;
    do {
      for (let t = 0; t < count && own === film; t++) {
        for (const [i, clip] of clips.entries()) draw(canvases[i], clip, images[i], Math.min(t, count - 1));
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
      if (!calm) await new Promise((resolve) => setTimeout(resolve, 700));
    } while (own === film && !calm);
  }

  function draw(canvas, clip, images, t) {
    const shot = { state: clip.states ? clip.states[t] : null, action: clip.actions[t] };
    drawScene(canvas, clip, shot, images[t]);
  }

  /** A picture that has been loaded; only data that is a picture is. */
  async function loaded(address) {
    const image = new Image();
    if (address.startsWith("data:image/")) image.src = address;
    await image.decode();
    return image;
  }

  function choose(side) {
    if (side === "again") {
      if (item?.pair && !Array.isArray(item.sides[0])) playFilm();
    } else if (unsent) {
      ask(unsent);
    } else if (side === "undo") {
      ask({ do: "undo", id: newId() });
    } else if (item?.pair) {
      ask({ do: "judge", id: newId(), pair: item.pair, side });
    }
  }

  for (const button of buttons) button.addEventListener("click", () => choose(button.id.replace("choose-", "")));
  document.addEventListener("keydown", (event) => {
    const side = KEYS[event.key];
    if (!side || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target === who) return;
    event.preventDefault();
    choose(side);
  });
  who.addEventListener("change", () => {
    sessionStorage.setItem("labeler", who.value);
    unsent = null;
    ask({ do: "next" });
    who.blur();
  });
  who.value = sessionStorage.getItem("labeler") || who.value;
  ask({ do: "next" });
})();
