/* The page of some runs: their charts and what else is live. */
"use strict";

const runs = new URLSearchParams(location.search).getAll("run");
const address = (page, more) => `${page}?${new URLSearchParams([...runs.map((run) => ["run", run]), ...more])}`;

startCharts(
  async (metrics, span, version) => {
    const answer = await ask(address("curves.json", [...metrics.map((m) => ["metric", m]), ["span", span], ["version", version || ""], ["pixels", 400]]));
    return answer && answer.status === 200 ? answer.json() : null;
  },
  async (x, y) => {
    const answer = await ask(address("exchange.json", [["x", x], ["y", y]]));
    return answer ? answer.json() : {};
  },
  2,
);
const state = document.getElementById("state"), comparison = document.getElementById("comparison"), diagnosis = document.getElementById("diagnosis");
again(2, () => replaceWith(state, address("state", [])));
if (comparison) {
  replaceWith(comparison, address("comparison", []));
  again(10, () => replaceWith(comparison, address("comparison", [])));
}
if (diagnosis) {
  replaceWith(diagnosis, address("diagnosis", []));
  again(5, () => replaceWith(diagnosis, address("diagnosis", [])));
}
