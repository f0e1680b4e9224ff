/* Draws environments from their states, as Gymnasium does. In a scene y points up, and lengths are pixels of its size.
   drawScene(canvas, about, shot): about and shot are the first line and any line of an episode (board/episodes.py). */
"use strict";

const ACTIONS = {
  cartpole: ["push left", "push right"],
  acrobot: ["torque −1", "no torque", "torque +1"],
  mountaincar: ["push left", "no push", "push right"],
  lunarlander: ["no engine", "left engine", "main engine", "right engine"],
};

/** What a page says of a state beside its picture; nothing in most scenes. */
function stateText(kind, state) {
  const scene = SCENES[kind];
  return scene && scene.text && state ? scene.text(state) : "";
}

/** The words for an action: its name, or its number or numbers. */
function actionText(kind, action) {
  if (action === undefined) return "";
  if (Array.isArray(action)) return action.map((x) => (typeof x === "number" ? x.toFixed(2) : String(x))).join(", ");
  return (ACTIONS[kind] || [])[action] || `action ${action}`;
}

/** Fills the polygon with the given corners [[x, y], ...]. */
function polygon(context, corners, colour) {
  context.beginPath();
  for (const [x, y] of corners) context.lineTo(x, y);
  context.closePath();
  context.fillStyle = colour;
  context.fill();
}

/** A line through points [[x, y], ...]. */
function line(context, points, colour, width) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function disc(context, x, y, radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

/** Draws in coordinates that are moved to (x, y) and turned counter-clockwise. */
function placed(context, x, y, angle, draw) {
  context.save();
  context.translate(x, y);
  context.rotate(angle);
  draw();
  context.restore();
}

function box(context, left, bottom, width, height, colour) {
  context.fillStyle = colour;
  context.fillRect(left, bottom, width, height);
}

/** An arrow along x from 0, of a length that may be negative. */
function arrow(context, length, colour) {
  const head = Math.sign(length) * Math.min(9, Math.abs(length));
  line(context, [[0, 0], [length - head / 2, 0]], colour, 3);
  polygon(context, [[length, 0], [length - head, 6], [length - head, -6]], colour);
}

function flag(context, x, y, colours) {
  line(context, [[x, y], [x, y + 50]], colours.ink, 1.5);
  polygon(context, [[x, y + 50], [x, y + 40], [x + 25, y + 45]], colours.c4);
}

/** A number of the state or of a continuous action, 0 where there is none. */
const first = (action) => (Array.isArray(action) ? action[0] || 0 : 0);

const SCENES = {
  cartpole: {
    size: [600, 400],
    draw(context, { limit, half_length: half }, [x, , angle], action, colours) {
      const scale = 600 / (2 * limit), cart = 300 + x * scale;
      line(context, [[0, 100], [600, 100]], colours.muted, 1.5);
      box(context, cart - 25, 85, 50, 30, colours.c0);
      placed(context, cart, 107.5, -angle, () => box(context, -5, -5, 10, 2 * half * scale, colours.c1));
      disc(context, cart, 107.5, 5, colours.ink);
      if (action !== undefined) placed(context, cart, 60, 0, () => arrow(context, action ? 40 : -40, colours.muted));
    },
  },
  acrobot: {
    size: [500, 500],
    draw(context, { length_1: one, length_2: two }, [a, b], action, colours) {
      const scale = 250 / (one + two + 0.2), x = one * scale * Math.sin(a), y = -one * scale * Math.cos(a);
      context.translate(250, 250);
      line(context, [[-250, scale], [250, scale]], colours.muted, 1.5);
      placed(context, 0, 0, a - Math.PI / 2, () => box(context, 0, -0.1 * scale, one * scale, 0.2 * scale, colours.c0));
      placed(context, x, y, a + b - Math.PI / 2, () => box(context, 0, -0.1 * scale, two * scale, 0.2 * scale, colours.c1));
      disc(context, 0, 0, 0.1 * scale, colours.ink);
      disc(context, x, y, 0.1 * scale, colours.ink);
      if (action !== undefined) torque(context, x, y, (action - 1) * 0.25 * scale, colours);
    },
  },
  mountaincar: {
    size: [600, 400],
    draw(context, { left, right, goal }, [position], action, colours) {
      const scale = 600 / (right - left), height = (x) => (Math.sin(3 * x) * 0.45 + 0.55) * scale;
      const hill = Array.from({ length: 101 }, (_, i) => left + ((right - left) * i) / 100);
      polygon(context, [[0, 0], ...hill.map((x) => [(x - left) * scale, height(x)]), [600, 0]], colours.line);
      flag(context, (goal - left) * scale, height(goal), colours);
      const push = Array.isArray(action) ? first(action) : action === undefined ? 0 : action - 1;
      placed(context, (position - left) * scale, height(position) + 10, Math.cos(3 * position), () => {
        box(context, -20, 0, 40, 20, colours.c0);
        for (const x of [-10, 10]) disc(context, x, 0, 8, colours.ink);
        if (push) placed(context, 0, 34, 0, () => arrow(context, 30 * Math.max(-1, Math.min(1, push)), colours.muted));
      });
    },
  },
  pendulum: {
    size: [500, 500],
    draw(context, { torque: most }, [angle], action, colours) {
      const scale = 500 / 4.4;
      context.translate(250, 250);
      placed(context, 0, 0, angle + Math.PI / 2, () => {
        box(context, 0, -0.1 * scale, scale, 0.2 * scale, colours.c1);
        disc(context, scale, 0, 0.1 * scale, colours.c1);
      });
      disc(context, 0, 0, 0.1 * scale, colours.c1);
      disc(context, 0, 0, 0.05 * scale, colours.ink);
      torque(context, 0, 0, (Math.max(-most, Math.min(most, first(action))) / most) * 0.5 * scale, colours);
    },
  },
  racing: {
    size: [600, 440],
    text: ([, , , speed, off, lap, seconds]) =>
      `${speed.toFixed(1)} m/s${off ? ", off the road" : ""}, ${lap ? `lap ${lap}: ${seconds.toFixed(1)} s` : "before the start line"}`,
    draw(context, { left, right }, [x, y, heading, speed, off, , , ...others], action, colours, past) {
      const edges = [...left, ...right], xs = edges.map((p) => p[0]), ys = edges.map((p) => p[1]);
      const [low, high, bottom, top] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      const scale = Math.min(580 / (high - low), 420 / (top - bottom));
      context.translate(300, 220);
      context.scale(scale, scale);
      context.translate(-(low + high) / 2, -(bottom + top) / 2);
      for (const edge of [left, right]) line(context, edge, colours.muted, 1 / scale);
      line(context, [left[0], right[0]], colours.ink, 2 / scale);
      const lap = past.map((shot) => shot.state).filter((state) => state[5] >= past[past.length - 1].state[5] - 1);
      for (let i = 1; i < lap.length; i++) line(context, [lap[i - 1], lap[i]].map(([a, b]) => [a, b]), speedColour(lap[i][3]), 2.5 / scale);
      const car = (at, to, angle, colour) => placed(context, at, to, angle, () => polygon(context, [[5, 0], [-4, 3], [-4, -3]], colour));
      for (let k = 0; k < others.length; k += 3) car(others[k], others[k + 1], others[k + 2], colours.muted);
      car(x, y, heading, off ? colours.c1 : colours.ink);
      for (let k = 0; k <= 6; k++) box(context, low + k * 12, bottom, 12, 4, speedColour(5 + 5 * k));
    },
  },
  lunarlander: {
    size: [600, 400],
    draw(context, world, state, action, colours) {
      const scale = 600 / world.size[0];
      context.scale(scale, scale);
      polygon(context, [[0, 0], ...world.terrain, [world.size[0], 0]], colours.line);
      const [from, to, height] = world.pad;
      line(context, [[from, height], [to, height]], colours.c4, 3 / scale);
      const [x, y, angle] = state;
      placed(context, x, y, angle, () => flames(context, engines(world, action), colours));
      for (const k of [3, 6]) placed(context, state[k], state[k + 1], state[k + 2], () => polygon(context, world.leg, colours.muted));
      placed(context, x, y, angle, () => polygon(context, world.lander, colours.c0));
      for (const at of [from, to]) placed(context, at, height, 0, () => { context.scale(1 / scale, 1 / scale); flag(context, 0, 0, colours); });
    },
  },
};

/** The colour of a speed in m/s, from blue at 5 over green to red at 35. */
const speedColour = (speed) => `hsl(${240 * (1 - Math.max(0, Math.min(1, (speed - 5) / 30)))}, 75%, 45%)`;

/** [main, side] of a lander's action: the power of the main engine 0 to 1, that of the side engines −1 to 1. */
function engines(world, action) {
  if (!world.continuous) return [action === 2 ? 1 : 0, action === 1 ? -1 : action === 3 ? 1 : 0];
  const [main, side] = action || [0, 0];
  return [main > 0 ? 0.5 + Math.min(1, main) / 2 : 0, Math.abs(side) > 0.5 ? Math.sign(side) * Math.min(1, Math.abs(side)) : 0];
}

/** The exhaust of a lander at (0, 0). A side engine blows to the side on which it sits, and pushes to the other. */
function flames(context, [main, side], colours) {
  if (main) polygon(context, [[-0.25, -0.3], [0.25, -0.3], [0, -0.4 - 1.1 * main]], colours.c1);
  const out = Math.sign(side);
  if (side) polygon(context, [[out * 0.55, 0.3], [out * 0.55, 0.55], [out * (0.6 + 0.5 * Math.abs(side)), 0.42]], colours.c1);
}

/** A torque about a point as an arc with a head; positive is counter-clockwise. */
function torque(context, x, y, size, colours) {
  const radius = Math.abs(size), sign = Math.sign(size);
  if (radius < 2) return;
  context.beginPath();
  context.arc(x, y, radius, 0, sign * Math.PI, sign < 0);
  context.strokeStyle = colours.ink;
  context.lineWidth = 2.5;
  context.stroke();
  placed(context, x - radius, y, -Math.PI / 2, () => arrow(context, sign * 10, colours.ink));
}

/** The colours of the page, for light and dark. */
function pageColours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "muted", "line", "paper", "c0", "c1", "c4"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Draws a state or a picture into a canvas, which gets the scene's size. An image is an Image that has been loaded.
    past: the shots up to this one, where a scene draws the way that was taken. */
function drawScene(canvas, about, shot, image, past = [shot]) {
  const scene = SCENES[about.kind], context = canvas.getContext("2d");
  const [width, height] = scene ? scene.size : [image.naturalWidth, image.naturalHeight];
  const dots = scene ? Math.max(1, Math.min(3, Math.round(window.devicePixelRatio))) : 1;
  if (canvas.width !== width * dots || canvas.height !== height * dots) Object.assign(canvas, { width: width * dots, height: height * dots });
  context.setTransform(1, 0, 0, 1, 0, 0);
  if (!scene) {
    context.drawImage(image, 0, 0);
    return;
  }
  const colours = pageColours();
  box(context, 0, 0, canvas.width, canvas.height, colours.paper);
  context.setTransform(dots, 0, 0, -dots, 0, dots * height);
  scene.draw(context, about.world, shot.state, shot.action, colours, past);
}
