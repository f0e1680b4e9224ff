/* The page on which a run's game is played: the board sends what moves lead to, and how the run's search grows. */
"use strict";

const by = (id) => document.getElementById(id);
const run = by("game").dataset.run, problem = by("problem");
const view = new BoardView(by("board"), (name) => play(name)), replayView = new BoardView(by("picture"), null);

let moves = []; // names, from the start
let position = null, players = 2;
let asked = null; // ends the request in progress
let frames = [], list = [];

const side = () => Number(by("side").value);
const isMine = () => position !== null && (players === 1 || position.turn === side());

/** Asks for the position after some moves, and for the run's thoughts; a move that is refused changes nothing. */
async function go(wanted, think) {
  if (asked) asked.abort();
  const own = (asked = new AbortController());
  const simulations = Number(by("simulations").value), step = by("checkpoint").value;
  problem.textContent = "";
  if (!position) by("state").textContent = "the run is loaded …";
  by("stop").disabled = think === "no";
  let seen = false;
  try {
    const request = { moves: wanted, think, simulations, checkpoint: step ? Number(step) : null };
    for await (const line of answers("search", run, request, own.signal)) {
      if (own !== asked) return;
      const part = line.more || line.end;
      if (part.position) {
        moves = part.move ? [...wanted, part.move] : wanted;
        seen = true;
        if (part.players) players = part.players;
        show(part.position, think === "reply" && !part.move && part.position.result === null);
      }
      if (part.search) showSearch(part.search);
    }
  } catch (error) {
    if (own === asked && error.name !== "AbortError") problem.textContent = error.message;
    if (own === asked && position) show(position, false);
    if (own === asked && !position) by("state").textContent = "";
  } finally {
    if (own === asked) { asked = null; by("stop").disabled = true; }
  }
  return seen;
}

/** Shows a position. */
function show(next, thinks) {
  position = next;
  view.show(next);
  by("sides").hidden = players === 1;
  const me = side() ? "O" : "X";
  by("moves").textContent = moves.length ? `${moves.length} ${moves.length === 1 ? "move" : "moves"}: ${moves.join(" ")}` : "";
  by("back").disabled = players === 1 ? !moves.length : moves.length <= side();
  by("hint").disabled = next.result !== null;
  let text = players === 1 ? "your move" : thinks ? `the run thinks (${side() ? "X" : "O"})` : isMine() ? `your move; you are ${me}` : "it is the run's turn";
  if (next.result !== null) {
    const mine = side() ? -next.result : next.result;
    text = players === 1 ? `the game is over, with a return of ${next.result}` : mine > 0 ? `you win as ${me}` : mine < 0 ? `the run wins, you were ${me}` : "the game is a draw";
  }
  by("state").textContent = text;
}

/** Shows what the search has so far. Values are turned to the person's side. */
function showSearch(row) {
  const mine = players === 1 || position.turn === side();
  by("search").hidden = false;
  const more = row.proven ? "; the value is proven" : row.simulations < row.of ? " …" : "";
  by("about").textContent = `${row.simulations.toLocaleString("en")} of ${row.of.toLocaleString("en")} simulations for ${mine ? "your" : "the run's"} move${more}`;
  const value = mine ? row.value : -row.value, sign = (x) => (x <= -0.005 ? "−" : x >= 0.005 ? "+" : "") + Math.abs(x).toFixed(2);
  by("value").textContent = `best: ${row.best}; value ${sign(value)} for you${players === 2 ? `, ${sign(-value)} for the run` : ""}`;
  by("bar").value = value;
  by("bar").textContent = sign(value);
  by("line").textContent = row.line.join(" ");
  const most = Math.max(1, ...row.visits.map(([, n]) => n));
  by("visits").replaceChildren(...row.visits.map(([name, n]) => {
    const line = element("tr"), bar = element("div", "", { className: "share" });
    bar.style.setProperty("--share", `${(100 * n) / most}%`);
    const cell = element("td", "", { className: "shares" });
    cell.append(bar);
    line.append(Object.assign(element("th", name), { scope: "row" }), element("td", String(n), { className: "n" }), cell);
    return line;
  }));
}

/** Plays a move of the person; the run answers, if it is its turn then. */
function play(name) {
  if (!position || !name) return;
  if (asked && !isMine()) { problem.textContent = "the run thinks: wait, or stop it first"; return; }
  go([...moves, name], players === 2 ? "reply" : "no");
}

/** Goes to the position after some moves, where the run moves if it is its turn. */
function goTo(wanted) {
  go(wanted, players === 2 && wanted.length % 2 !== side() ? "reply" : "no");
}

function takeBack() {
  const kept = moves.slice(0, -1);
  while (players === 2 && kept.length && kept.length % 2 !== side()) kept.pop();
  goTo(kept);
}

function clearThoughts() {
  by("search").hidden = true;
  by("about").textContent = "Nothing yet: it thinks when it is its turn, and for a hint.";
}

by("new").addEventListener("click", () => { clearThoughts(); goTo([]); });
by("back").addEventListener("click", takeBack);
by("hint").addEventListener("click", () => { if (position) go(moves, "hint"); });
by("stop").addEventListener("click", () => {
  if (!asked) return;
  asked.abort();
  asked = null;
  by("stop").disabled = true;
  if (position) show(position, false);
  by("state").textContent += isMine() ? "" : "; take back, begin anew, or let it move with the choice of sides";
});
by("side").addEventListener("change", () => goTo(moves));
by("checkpoint").addEventListener("change", () => { clearThoughts(); goTo(moves); });
by("choice").addEventListener("submit", (event) => event.preventDefault());
by("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  play(by("move").value.trim());
  by("move").value = "";
});

/** Replays the moves of the text; the first illegal one is marked. */
async function replay() {
  problem.textContent = "";
  const step = by("checkpoint").value;
  try {
    for await (const line of answers("replay", run, { moves: by("list").value, checkpoint: step ? Number(step) : null })) {
      if (!line.end) continue;
      [frames, list] = [line.end.frames, line.end.moves];
      by("replayed").hidden = false;
      by("frame").max = String(frames.length - 1);
      showFrame(frames.length - 1);
    }
  } catch (error) {
    problem.textContent = error.message;
    problem.scrollIntoView({ block: "nearest" });
  }
}

/** Shows what the first `at` moves lead to. */
function showFrame(at) {
  const frame = frames[at];
  by("frame").value = String(at);
  replayView.show(frame.picture);
  by("shown").className = frame.problem ? "bad" : "";
  by("shown").textContent = frame.problem || (at ? `after move ${at} of ${list.length}, ${frame.move}` : "the start");
  by("on").disabled = Boolean(frame.problem);
  by("steps").replaceChildren(...list.map((name, i) => {
    const item = element("li"), shown = frames[i + 1];
    if (!shown) { item.append(element("span", name, { className: "muted", title: "not reached" })); return item; }
    const button = element("button", shown.problem ? `${name} ✗` : name, { type: "button", className: shown.problem ? "bad" : "" });
    if (shown.problem) button.setAttribute("aria-label", `${name}, illegal`);
    if (i + 1 === at) button.setAttribute("aria-current", "step");
    button.addEventListener("click", () => { showFrame(i + 1); by("steps").children[i].firstChild.focus(); });
    item.append(button);
    return item;
  }));
}

by("replay").addEventListener("submit", (event) => { event.preventDefault(); replay(); });
by("take").addEventListener("click", () => { by("list").value = moves.join(" "); replay(); });
by("frame").addEventListener("input", () => showFrame(Number(by("frame").value)));
by("on").addEventListener("click", () => { goTo(list.slice(0, Number(by("frame").value))); by("state").scrollIntoView({ block: "nearest" }); });
go([], "no");
