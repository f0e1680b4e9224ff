/* The page of a run's greedy episodes: one is fetched line by line, kept, and shown at the environment's own speed. */
"use strict";

const canvas = document.getElementById("scene"), problem = document.getElementById("problem");
const readout = document.getElementById("readout"), slider = document.getElementById("step");
const playing = document.getElementById("play"), speed = document.getElementById("speed");
const seed = document.getElementById("seed"), checkpoint = document.getElementById("checkpoint");
const run = document.getElementById("watch").dataset.run;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let about = null; // the first line of the episode
let shots = []; // what is shown of each step: {state or image, action, return}
let end = null; // the last line of the episode
let at = 0; // the step that is shown
let since = null; // the time from which steps are counted while the episode plays; null: it rests
let fetched = null; // ends the fetch

/** Loads the picture of a shot, if it has one; only data that is a picture is loaded. */
async function withImage(shot) {
  if (!shot.image) return shot;
  const image = new Image();
  if (shot.image.startsWith("data:image/")) image.src = shot.image;
  await image.decode();
  return { ...shot, image };
}

/** Fetches the episode that the controls choose, in place of the present one. */
async function fetchEpisode() {
  if (fetched) fetched.abort();
  const own = (fetched = new AbortController());
  [about, shots, end, at] = [null, [], null, 0];
  problem.textContent = "";
  rest();
  readout.textContent = "the run is loaded …";
  const query = new URLSearchParams({ run, seed: seed.value || "0", ...(checkpoint.value ? { checkpoint: checkpoint.value } : {}) });
  try {
    const answer = await fetch(`episode?${query}`, { signal: own.signal });
    if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
    for await (const line of linesOf(answer)) {
      if (own !== fetched) return;
      if (line.error !== undefined) throw new Error(line.error);
      if (line.end) end = line.end;
      else await add(line.more, own);
    }
    if (own === fetched) show();
  } catch (error) {
    if (own !== fetched) return;
    rest();
    readout.textContent = "";
    problem.textContent = error instanceof TypeError ? "the board does not answer; is it still running?" : error.message;
  }
}

/** Adds a line of the episode. The first one begins it. */
async function add(line, own) {
  const shot = await withImage(line);
  if (own !== fetched) return;
  shots.push(shot);
  slider.max = String(shots.length - 1);
  if (about) return;
  about = line;
  show();
  if (!calm.matches) play();
}

/** Shows the present step. */
function show() {
  if (!about) return;
  const shot = shots[at], last = at === shots.length - 1 && end;
  drawScene(canvas, about, shot, shot.image, shots.slice(0, at + 1));
  slider.value = String(at);
  const parts = [`step ${at} of ${shots.length - 1}${end ? "" : " so far"}`, `reward so far ${Number((shot.return || 0).toFixed(3))}`];
  if (stateText(about.kind, shot.state)) parts.push(stateText(about.kind, shot.state));
  if (shot.action !== undefined) parts.push(actionText(about.kind, shot.action));
  if (last) parts.push(end.why);
  readout.textContent = parts.join(" · ");
  slider.setAttribute("aria-valuetext", parts.slice(0, 2).join(", "));
  canvas.setAttribute("aria-label", `${about.env}, checkpoint ${about.checkpoint}, ${parts.join(", ")}`);
  document.getElementById("about").textContent = `${about.env}, checkpoint ${about.checkpoint}, reset(seed=${about.seed}), ${about.fps} steps a second`;
}

function rest() {
  since = null;
  playing.textContent = "play";
}

/** Plays on from the present step, or from the start if it is the last one. */
function play() {
  if (!about) return;
  if (at >= shots.length - 1 && end) at = 0;
  since = { time: performance.now(), step: at, rate: about.fps * Number(speed.value) };
  playing.textContent = "pause";
  requestAnimationFrame(tick);
}

function tick(now) {
  if (!since || !about) return;
  const due = since.step + Math.floor((Math.max(0, now - since.time) / 1000) * since.rate);
  const next = Math.min(due, shots.length - 1);
  if (due > next) since = { ...since, time: now, step: next }; // it waits for what is not there yet
  if (next !== at) { at = next; show(); }
  if (at >= shots.length - 1 && end) rest(); else requestAnimationFrame(tick);
}

/** Goes to a step, and rests there. */
function go(step) {
  rest();
  at = Math.max(0, Math.min(shots.length - 1, step));
  show();
}

function next() {
  seed.value = String((Number(seed.value) || 0) + 1);
  fetchEpisode();
}

const toggle = () => (since ? rest() : play());
playing.addEventListener("click", toggle);
document.getElementById("back").addEventListener("click", () => go(at - 1));
document.getElementById("on").addEventListener("click", () => go(at + 1));
document.getElementById("next").addEventListener("click", next);
slider.addEventListener("input", () => go(Number(slider.value)));
speed.addEventListener("change", () => { if (since) play(); });
document.getElementById("choice").addEventListener("submit", (event) => { event.preventDefault(); fetchEpisode(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
canvas.addEventListener("keydown", (event) => {
  const keys = { " ": toggle, ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(shots.length - 1), n: next };
  const key = keys[event.key];
  if (!key || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  key();
});
fetchEpisode();
