/* Draws the curves of a page with uPlot: seeds as a band with each thin behind it, single runs as lines.
   The data are the page's own (a report), or come from `curves.json` again and again (the board). */
"use strict";

/**
 * @typedef {[number[], number[]]} Points rounds and values
 * @typedef {{runs: Object<string, Points>, bands: Object<string, number[][]>,
 *            between: Object<string, Object<string, number[][]>>}} Chart
 * @typedef {{runs: string[], groups: Object<string, string[]>, metrics: Object<string, Chart>,
 *            axes: Object<string, Object<string, Points>>, version: string, rows: Object<string, number>}} Charts
 */
const COLOURS = 8;
const HEIGHT = 220;
const style = getComputedStyle(document.documentElement);
const colourOf = (name) => style.getPropertyValue(name).trim();
const drawn = new Map(); // figure -> {plot, form, shown}: the chart, what it was made for, and the lines that it shows

/** The colour of each group, by its place. */
function colourNumber(charts, label) {
  return Math.max(0, Object.keys(charts.groups).indexOf(label)) % COLOURS;
}

/** Value of a curve at x, linear between its points; null outside of them. */
function interpolate([xs, ys], x) {
  if (!xs.length || x < xs[0] || x > xs[xs.length - 1]) return null;
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  if (xs[high] === xs[low]) return ys[high];
  return ys[low] + ((x - xs[low]) / (xs[high] - xs[low])) * (ys[high] - ys[low]);
}

/** Where rounds of some runs lie on an axis: of several seeds, at their mean. */
function onAxis(charts, axis, names, rounds) {
  if (axis === "step") return rounds;
  const curves = names.map((name) => charts.axes[axis] && charts.axes[axis][name]).filter(Boolean);
  return rounds.map((round) => {
    const values = curves.map((curve) => interpolate(curve, round)).filter((v) => v !== null);
    return values.length ? values.reduce((a, b) => a + b) / values.length : null;
  });
}

/** The lines of one chart: {label, group, kind, x, y}; kind is line, thin, middle, low or high. */
function linesOf(charts, chart, axis) {
  const lines = [];
  for (const [label, names] of Object.entries(charts.groups)) {
    const band = chart.bands[label];
    for (const name of names) {
      if (!chart.runs[name]) continue;
      const [rounds, values] = chart.runs[name];
      lines.push({ label: name, group: label, kind: band ? "thin" : "line", x: onAxis(charts, axis, [name], rounds), y: values });
    }
    if (band) {
      const between = (chart.between[axis] || {})[label]; // seeds interpolated where each has an x of its own
      const x = between ? between[0] : onAxis(charts, axis, names, band[0]), [, middle, low, high] = between || band;
      for (const [kind, y] of [["low", low], ["high", high], ["middle", middle]]) lines.push({ label, group: label, kind, x, y });
    }
  }
  return lines.map((line) => {
    const kept = line.x.map((x, i) => i).filter((i) => line.x[i] !== null && line.y[i] !== null);
    return { ...line, x: kept.map((i) => line.x[i]), y: kept.map((i) => line.y[i]) };
  });
}

function number(value) {
  if (value === null || value === undefined) return "";
  return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

/** Draws lines into a figure, in place of what it shows. */
function draw(figure, charts, title, lines, options, xName) {
  const readout = figure.querySelector(".readout") || document.createElement("output");
  if (!figure.querySelector("figcaption")) {
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    readout.className = "readout";
    const canvas = document.createElement("div");
    canvas.className = "plot";
    canvas.setAttribute("role", "img");
    canvas.tabIndex = 0;
    figure.append(caption, readout, canvas);
  }
  const last = lines.filter((l) => l.kind === "line" || l.kind === "middle").map((l) => `${l.label} ${number(l.y[l.y.length - 1])}`);
  const canvas = figure.querySelector(".plot");
  canvas.setAttribute("aria-label", `${title} over ${xName}; last values: ${last.join(", ")}`);
  const positive = (v) => v > 0;
  const logY = options.logY && lines.every((l) => l.y.every(positive)), logX = options.logX;
  const tables = lines.map((l) => {
    const kept = logX ? l.x.map((x, i) => i).filter((i) => l.x[i] > 0) : l.x.map((x, i) => i);
    const order = options.points ? kept.sort((a, b) => l.x[a] - l.x[b]) : kept;
    return [order.map((i) => l.x[i]), order.map((i) => l.y[i])];
  });
  const shown = { lines, tables }, form = JSON.stringify([lines.map((l) => [l.label, l.kind, l.group]), logX, logY, xName, options.range, figure.clientWidth, matchMedia("(prefers-color-scheme: dark)").matches]);
  const before = drawn.get(figure);
  figure.dataset.drawn = String(lines.reduce((sum, l) => sum + l.x.length, 0));
  if (before && before.form === form) { // new points alone; what the cursor points at stays
    Object.assign(before.shown, shown);
    before.plot.setData(joined(tables), !options.range);
    return;
  }
  if (before) before.plot.destroy();
  const series = lines.map((line) => {
    const colour = colourOf(`--c${colourNumber(charts, line.group)}`);
    const faint = line.kind === "thin", edge = line.kind === "low" || line.kind === "high";
    return {
      label: line.label, spanGaps: true, stroke: edge ? "transparent" : faint ? `${colour}66` : colour,
      width: faint ? 0.8 : edge ? 0 : 1.8,
      points: { show: options.points || line.x.length < 2, size: options.points ? 4 : 6 },
      ...(options.points ? { paths: () => null } : {}),
    };
  });
  const bands = lines.map((line, i) => line.kind === "high" ? { series: [i + 1, i], fill: `${colourOf(`--c${colourNumber(charts, line.group)}`)}2e` } : null).filter(Boolean);
  const axis = { stroke: colourOf("--muted"), grid: { stroke: colourOf("--line"), width: 1 }, ticks: { stroke: colourOf("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const plot = new uPlot({
    width: Math.max(200, figure.clientWidth - 20), height: HEIGHT, series: [{ label: xName }, ...series], bands,
    scales: { x: { time: false, distr: logX ? 3 : 1 }, y: { distr: logY ? 3 : 1, ...(logY ? {} : { range: yRange }) } },
    axes: [{ ...axis, size: 34, values: (u, ticks) => ticks.map(short) }, { ...axis, size: 56, values: (u, ticks) => ticks.map(short) }],
    cursor: { drag: { x: true, y: false }, points: { size: 6 } }, legend: { show: false },
    hooks: {
      setCursor: [(u) => tell(u, readout, shown, charts, xName)],
      setSelect: [(u) => u.select.width > 4 && document.dispatchEvent(new CustomEvent("zoom", { detail: [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")] }))],
    },
  }, joined(tables), canvas);
  if (options.range) plot.setScale("x", { min: options.range[0], max: options.range[1] });
  drawn.set(figure, { plot, form, shown });
}

/** Tables on one x axis. A run that goes on from a checkpoint may have lost all points of a metric: no table then. */
const joined = (tables) => (tables.length ? uPlot.join(tables) : [[]]);

/** The range of the vertical axis; a metric that never changes is drawn in the middle, and one that is 0 at the bottom. */
function yRange(u, low, high) {
  if (low === null) return [0, 1];
  if (low === high) return low ? [low - Math.abs(low) / 10, low + Math.abs(low) / 10] : [0, 1];
  return uPlot.rangeNum(low, high, 0.1, true);
}

function short(tick) {
  if (tick === null || tick === undefined) return "";
  const size = Math.abs(tick);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (size >= 10 * unit || (unit > 1e3 && size >= unit)) return `${Number((tick / unit).toPrecision(4))}${letter}`;
  return String(Number(tick.toPrecision(6)));
}

/** Shows the values under the cursor, each line's nearest one to the left. */
function tell(u, readout, { lines, tables }, charts, xName) {
  readout.textContent = "";
  const at = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null;
  if (at === null) return;
  readout.append(`${xName} ${number(at)}  `);
  lines.forEach((line, i) => {
    if (line.kind === "low" || line.kind === "high" || (line.kind === "thin" && lines.length > 24)) return;
    const [xs, ys] = tables[i];
    let near = 0;
    for (let k = 1; k < xs.length; k++) if (Math.abs(xs[k] - at) < Math.abs(xs[near] - at)) near = k;
    if (!xs.length) return;
    const key = document.createElement("span");
    key.className = "key";
    key.style.setProperty("--own", colourOf(`--c${colourNumber(charts, line.group)}`));
    const ends = line.kind === "middle" ? ` [${number(tables[i - 2][1][near])}, ${number(tables[i - 1][1][near])}]` : "";
    key.textContent = `${line.label} ${number(ys[near])}${ends}`;
    readout.append(key);
  });
}

/** Names the groups with their colours. */
function showLegend(charts) {
  const legend = document.getElementById("legend");
  legend.textContent = "";
  for (const [label, names] of Object.entries(charts.groups)) {
    const entry = document.createElement("span");
    entry.style.setProperty("--own", colourOf(`--c${colourNumber(charts, label)}`));
    entry.textContent = names.length > 1 ? `${label}: interquartile mean of ${names.length} seeds, 95 % interval, each seed thin; over seconds they are interpolated` : label;
    legend.append(entry);
  }
}

/** Starts the charts of a page. source(metrics, span) returns Charts; exchange(x, y) the points of two metrics. */
function startCharts(source, exchange, seconds) {
  const controls = document.querySelector(".controls");
  const read = (id) => document.getElementById(id);
  const state = { range: null, version: new Map() };
  controls.hidden = false;
  read("legend").textContent = "the runs are read …";
  const visible = () => [...document.querySelectorAll("figure.chart")].filter((f) => !f.closest("details:not([open])"));
  const options = () => ({ logX: read("log-x").checked, logY: read("log-y").checked, range: state.range });

  async function refresh(force) {
    const figures = visible(), over = read("over").value, span = read("span") ? Number(read("span").value) : 1;
    const metrics = figures.map((f) => f.dataset.metric).filter(Boolean);
    const charts = await source(metrics, span, force ? "" : state.version.get("shown"));
    if (!charts) return; // nothing new
    state.version.set("shown", charts.version);
    showLegend(charts);
    for (const figure of figures) {
      if (figure.dataset.metric) {
        const chart = charts.metrics[figure.dataset.metric];
        draw(figure, charts, figure.dataset.metric, linesOf(charts, chart, over), options(), over === "step" ? "round" : over);
      } else {
        const [x, y] = JSON.parse(figure.dataset.exchange), points = await exchange(x, y);
        const lines = Object.entries(points).map(([name, [xs, ys]]) => {
          const group = Object.keys(charts.groups).find((label) => charts.groups[label].includes(name)) || name;
          return { label: name, group, kind: "line", x: xs, y: ys };
        });
        draw(figure, charts, `${y} over ${x}, a point a round`, lines, { ...options(), logX: false, range: null, points: true }, x);
      }
    }
    if (charts.problem) document.getElementById("problem").textContent = charts.problem;
  }
  for (const id of ["over", "span", "log-x", "log-y"]) if (read(id)) read(id).addEventListener("change", () => { if (id === "over") state.range = null; refresh(true); });
  document.addEventListener("zoom", (event) => { state.range = event.detail; read("whole").disabled = false; refresh(true); });
  read("whole").addEventListener("click", () => { state.range = null; read("whole").disabled = true; refresh(true); });
  for (const group of document.querySelectorAll("details.group")) group.addEventListener("toggle", () => group.open && refresh(true));
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => refresh(true), 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh(true));
  refresh(true);
  if (seconds) setInterval(() => document.hidden || refresh(false), 1000 * seconds);
}
