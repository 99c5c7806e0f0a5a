// Draws what the kernel sends. The kernel decides everything; the page asks for pictures and draws
// each whole. Few questions are under way at a time, so a slow page or a busy kernel never lets
// messages pile up. But more than one: the server writes a status before each answer, and TCP
// holds the answer back for the page's acknowledgement (40 ms), which the next question carries.

const INK = "#222", SOFT = "#767676", GRID = "#e3e3e3", TOKEN = "rgba(70,70,70,.38)";
const DEAD = "#444", FLASH = "#009E73";
const SIDES = { A: { code: "#D55E00", dash: [] }, B: { code: "#0072B2", dash: [5, 3] } };
const FONT = "12px system-ui, sans-serif", SMALL = "11px system-ui, sans-serif";
const WIDTH = 800, HEIGHT = 668;
const UNDER_WAY = 3;

function render({ model, el }) {
  el.classList.add("vq-live");
  const canvas = document.createElement("canvas");
  canvas.className = "vq-canvas";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  const words = document.createElement("div");
  words.className = "vq-summary";
  const error = document.createElement("div");
  error.className = "vq-error";
  error.setAttribute("role", "alert");
  el.append(canvas, words, error);

  const view = { frame: null, fresh: false, waiting: 0, asked: 0, drawn: 0, on: true };
  const dpr = Math.min(window.devicePixelRatio || 1, 2);
  canvas.width = WIDTH * dpr;
  canvas.height = HEIGHT * dpr;
  const ctx = canvas.getContext("2d");
  ctx.scale(dpr, dpr);

  function ask(kind) {
    view.waiting += 1;
    view.asked = performance.now();
    model.send({ kind });
  }
  function hear(message, buffers) {
    if (message.answer) view.waiting = Math.max(0, view.waiting - 1);
    if (message.kind === "error") error.textContent = message.text;
    if (message.kind !== "frame") return;
    error.textContent = "";
    view.frame = { ...message, buffers };
    view.fresh = true;
  }
  function tick(now) {
    if (!view.on) return;
    if (view.fresh && !document.hidden) {
      view.fresh = false;
      draw(ctx, view.frame);
      tell(view.frame);
    }
    const pace = 1000 / Math.min(model.get("speed"), 60);
    if (now - view.asked > 3000) view.waiting = 0; // the answers are lost, or the kernel is busy
    const due = now - view.asked >= pace - 4;
    if (model.get("playing") && due && view.waiting < UNDER_WAY) ask("next");
    requestAnimationFrame(tick);
  }
  function tell(frame) {
    view.drawn += 1;
    const text = Object.entries(frame.sides).map(([side, { words }]) =>
      frame.compare ? `${side}: ${words}` : words).join("\n");
    words.textContent = text;
    words.setAttribute("aria-live", model.get("playing") ? "off" : "polite");
    canvas.setAttribute("aria-label", text);
    canvas.dataset.step = frame.sides.A.step;
    canvas.dataset.revision = frame.revision;
    canvas.dataset.drawn = view.drawn;
  }
  const keys = { " ": "toggle", ".": "step", r: "reset" };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has its own use for these keys
    ask(keys[event.key]);
  });
  model.on("msg:custom", hear);
  ask("show");
  requestAnimationFrame(tick);
  return () => {
    view.on = false;
    model.off("msg:custom", hear);
  };
}

function array(frame, side, name) {
  const meta = frame.sides[side], [kind, shape, offset] = meta.arrays[name];
  const { buffer, byteOffset } = frame.buffers[Object.keys(frame.sides).indexOf(side)];
  const count = shape.reduce((a, b) => a * b, 1);
  return kind === "u2" ? new Uint16Array(buffer, byteOffset + offset, count)
                       : new Float32Array(buffer, byteOffset + offset, count);
}

function draw(ctx, frame) {
  ctx.fillStyle = "#fff";
  ctx.fillRect(0, 0, WIDTH, HEIGHT);
  const sides = Object.keys(frame.sides);
  const size = frame.compare ? 392 : 470, top = frame.compare ? 22 : 4;
  sides.forEach((side, i) => {
    const box = { x: 4 + i * 400, y: top, size };
    picture(ctx, frame, side, box);
    if (frame.compare) title(ctx, `${side}   ${frame.titles[side]}`, box.x, 15, SIDES[side].code);
  });
  if (frame.compare) key(ctx, 4, 424, true);
  else key(ctx, 500, 12, false);
  const y = frame.compare ? 490 : 508, h = frame.compare ? 146 : 128, w = frame.compare ? 156 : 220;
  const box = (n) => ({ x: 40 + n * (w + 44), y, w, h });
  const share = { low: 0, high: 1, unit: (v) => `${Math.round(100 * v)} %` };
  const times = { low: 0, least: 4, unit: (v) => `${v} x` };
  chart(ctx, frame, "curve_utilization", "codes in use", share, box(0));
  chart(ctx, frame, "curve_perplexity", "perplexity / K", share, box(1));
  chart(ctx, frame, "curve_top_code_ratio", "top code / average", times, box(2));
  label(ctx, validation(frame), box(0).x, y + h + 11);
  const seen = Math.min(frame.sides.A.step, array(frame, "A", "curve_utilization").length);
  label(ctx, `the last ${seen} steps`, box(2).x + w, y + h + 11, "right");
  const bars = frame.compare ? box(3) : { x: 530, y: 262, w: 262, h: 186 };
  histogram(ctx, frame, frame.compare ? "use of each code" : "use of each code, most used first", bars);
}

function picture(ctx, frame, side, { x, y, size }) {
  const meta = frame.sides[side], get = (name) => array(frame, side, name);
  const place = (v, i) => [x + (v[2 * i] / meta.reach + 1) / 2 * size,
                           y + (1 - v[2 * i + 1] / meta.reach) / 2 * size];
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, size, size);
  ctx.clip();
  const [rows] = meta.arrays.cells[1];
  const tints = shades(get("counts"), meta.share, side);
  if (meta.surface === "circle") {
    ring(ctx, get("cells"), tints, x + size / 2, y + size / 2, size / 2 / meta.reach);
  } else if (rows) cells(ctx, get("cells"), tints, rows, { x, y, size });
  ctx.fillStyle = TOKEN;
  const points = get("points");
  for (let i = 0; i < points.length / 2; i++) {
    const [px, py] = place(points, i);
    ctx.fillRect(px - 1, py - 1, 2, 2);
  }
  if (rows) codes(ctx, meta, get, place, side, { x, y, size });
  ctx.restore();
  ctx.strokeStyle = "#999";
  ctx.lineWidth = 1;
  ctx.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
}

// Cells are tinted by their code's hits: white is none, full is eight times the average.
function shades(counts, share, side) {
  const full = side === "A" ? [213, 94, 0] : [0, 114, 178];
  return Array.from(counts, (c) => {
    const t = 0.42 * Math.min(1, Math.log2(1 + c / share) / 3.2);
    return full.map((v) => Math.round(250 + t * (v - 250)));
  });
}

const tile = document.createElement("canvas");
function cells(ctx, labels, tints, n, { x, y, size }) {
  tile.width = tile.height = n;
  const small = tile.getContext("2d"), image = small.createImageData(n, n);
  for (let i = 0; i < labels.length; i++) {
    const [r, g, b] = tints[labels[i]], at = 4 * i;
    image.data[at] = r;
    image.data[at + 1] = g;
    image.data[at + 2] = b;
    image.data[at + 3] = 255;
  }
  small.putImageData(image, 0, 0);
  ctx.imageSmoothingEnabled = true;
  ctx.drawImage(tile, x, y, size, size);
  borders(ctx, labels, n, x, y, size / n);
}

// Where four neighbours of the grid differ, a line between the middles of the sides they differ on.
function borders(ctx, labels, n, x, y, s) {
  ctx.beginPath();
  for (let row = 0; row < n - 1; row++) {
    for (let col = 0; col < n - 1; col++) {
      const i = row * n + col;
      const a = labels[i], b = labels[i + 1], c = labels[i + n], d = labels[i + n + 1];
      if (a === b && c === d && a === c) continue;
      const ends = [];
      const px = x + (col + 0.5) * s, py = y + (row + 0.5) * s;
      if (a !== b) ends.push([px + s / 2, py]);
      if (c !== d) ends.push([px + s / 2, py + s]);
      if (a !== c) ends.push([px, py + s / 2]);
      if (b !== d) ends.push([px + s, py + s / 2]);
      const from = ends.length === 2 ? ends.pop() : [px + s / 2, py + s / 2];
      for (const end of ends) {
        ctx.moveTo(...from);
        ctx.lineTo(...end);
      }
    }
  }
  ctx.strokeStyle = "rgba(0,0,0,.22)";
  ctx.lineWidth = 0.8;
  ctx.stroke();
}

// On the circle a cell is an arc: drawn as a piece of a ring around it.
function ring(ctx, labels, tints, x, y, radius) {
  const n = labels.length, inner = 1.06 * radius, outer = 1.3 * radius;
  ctx.fillStyle = "#fafafa";
  ctx.fillRect(x - 9 * radius, y - 9 * radius, 18 * radius, 18 * radius);
  ctx.strokeStyle = "rgba(0,0,0,.3)";
  ctx.lineWidth = 0.8;
  for (let start = 0, i = 1; i <= n; i++) {
    if (i < n && labels[i] === labels[start]) continue;
    const from = -start / n * 2 * Math.PI, to = -i / n * 2 * Math.PI; // a canvas turns rightwards
    ctx.beginPath();
    ctx.arc(x, y, outer, from, to, true);
    ctx.arc(x, y, inner, to, from, false);
    ctx.closePath();
    ctx.fillStyle = `rgb(${tints[labels[start]]})`;
    ctx.fill();
    ctx.stroke();
    start = i;
  }
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.strokeStyle = "#777";
  ctx.stroke();
}

function codes(ctx, meta, get, place, side, box) {
  const trails = get("trails"), from = get("from"), idle = get("idle"), age = get("age");
  const sizes = get("sizes"), K = meta.K, steps = meta.arrays.trails[1][0];
  const color = SIDES[side].code, dead = (k) => idle[k] >= meta.dead_after;
  for (const [gone, style] of [[true, "rgba(68,68,68,.45)"], [false, color + "66"]]) {
    ctx.beginPath();
    for (let k = 0; k < K; k++) {
      if (dead(k) !== gone) continue;
      for (let t = 0; t < steps; t++) {
        const [px, py] = place(trails, t * K + k);
        t ? ctx.lineTo(px, py) : ctx.moveTo(px, py);
      }
    }
    ctx.strokeStyle = style;
    ctx.lineWidth = 1.2;
    ctx.stroke();
  }
  for (let k = 0; k < K; k++) {
    let [px, py] = place(trails, k);
    const outside = px < box.x || py < box.y || px > box.x + box.size || py > box.y + box.size;
    px = Math.min(Math.max(px, box.x + 4), box.x + box.size - 4);
    py = Math.min(Math.max(py, box.y + 4), box.y + box.size - 4);
    if (dead(k) || outside) cross(ctx, px, py);
    else dot(ctx, px, py, 4, color, sizes[k] < meta.threshold);
    if (age[k] < 12) flash(ctx, px, py, place(from, k), 1 - age[k] / 12);
  }
}

function cross(ctx, x, y) {
  ctx.beginPath();
  ctx.moveTo(x - 3, y - 3);
  ctx.lineTo(x + 3, y + 3);
  ctx.moveTo(x - 3, y + 3);
  ctx.lineTo(x + 3, y - 3);
  ctx.strokeStyle = DEAD;
  ctx.lineWidth = 1.6;
  ctx.stroke();
}

function dot(ctx, x, y, radius, color, hollow) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  ctx.fillStyle = hollow ? "#fff" : color;
  ctx.fill();
  ctx.strokeStyle = hollow ? color : "#fff";
  ctx.lineWidth = hollow ? 2 : 1;
  ctx.stroke();
}

function flash(ctx, x, y, from, strength) {
  ctx.globalAlpha = strength;
  ctx.strokeStyle = FLASH;
  ctx.lineWidth = 1.2;
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(x, y);
  ctx.stroke();
  ctx.lineWidth = 2.5;
  ctx.beginPath();
  ctx.arc(x, y, 6 + 8 * (1 - strength), 0, 2 * Math.PI);
  ctx.stroke();
  ctx.globalAlpha = 1;
}

function title(ctx, text, x, y, color = INK) {
  ctx.font = "bold " + FONT;
  ctx.fillStyle = color;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(text, x, y);
}

function label(ctx, text, x, y, align = "left") {
  ctx.font = SMALL;
  ctx.fillStyle = SOFT;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.fillText(text, x, y);
}

function key(ctx, x, y, flat) {
  const color = flat ? "#777" : SIDES.A.code;
  const entries = [
    ["a code in use", (px, py) => dot(ctx, px, py, 4, color, false)],
    ["below the threshold", (px, py) => dot(ctx, px, py, 4, color, true)],
    ["not chosen for 20 steps", (px, py) => cross(ctx, px, py)],
    ["just reset, and from where", (px, py) => flash(ctx, px, py, [px - 12, py], 0.8)],
    ["a token", (px, py) => { ctx.fillStyle = TOKEN; ctx.fillRect(px - 1.5, py - 1.5, 3, 3); }],
    ["cell: darker, more hits", (px, py) => { ctx.fillStyle = flat ? "#ccc" : "#F2B48A";
      ctx.fillRect(px - 6, py - 6, 12, 12); ctx.strokeStyle = "#999"; ctx.lineWidth = 0.8;
      ctx.strokeRect(px - 6, py - 6, 12, 12); }],
  ];
  entries.forEach(([text, mark], i) => {
    const px = flat ? x + 10 + (i % 3) * 264 : x + 16;
    const py = flat ? y + 8 + Math.floor(i / 3) * 20 : y + 14 + i * 24;
    mark(px, py);
    label(ctx, text, px + (flat ? 12 : 18), py);
  });
}

function axes(ctx, { x, y, w, h }, low, high, unit, text) {
  title(ctx, text, x, y - 9);
  ctx.strokeStyle = GRID;
  ctx.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    const py = Math.round(y + h - part * h) + 0.5;
    ctx.beginPath();
    ctx.moveTo(x, py);
    ctx.lineTo(x + w, py);
    ctx.stroke();
  }
  for (const part of [0, 0.5, 1]) label(ctx, unit(low + part * (high - low)), x - 5, y + h - part * h, "right");
}

function chart(ctx, frame, name, text, { low, high, least, unit }, box) {
  const sides = Object.keys(frame.sides);
  const { x, y, w, h } = box;
  if (high === undefined) { // round up, so that the scale does not tremble
    const top = Math.max(least, ...sides.flatMap((s) => Array.from(array(frame, s, name))));
    high = 2 ** Math.ceil(Math.log2(top));
  }
  axes(ctx, box, low, high, unit, text);
  sides.forEach((side) => {
    const values = array(frame, side, name);
    const span = Math.max(100, values.length - 1);
    line(ctx, values, (i) => x + i / span * w, (v) => y + h - (v - low) / (high - low) * h, side, 1.8);
  });
}

function line(ctx, values, px, py, side, width) {
  ctx.beginPath();
  values.forEach((v, i) => ctx.lineTo(px(i), py(v)));
  ctx.strokeStyle = SIDES[side].code;
  ctx.setLineDash(SIDES[side].dash);
  ctx.lineWidth = width;
  ctx.stroke();
  ctx.setLineDash([]);
}

function validation(frame) {
  const parts = Object.keys(frame.sides).map((side) => {
    const value = array(frame, side, "curve_val").at(-1);
    return value >= 0 ? `${frame.compare ? side + " " : ""}${Math.round(100 * value)} %` : "";
  });
  return parts[0] ? `on other tokens: ${parts.join(", ")}` : "";
}

function histogram(ctx, frame, text, box) {
  const sides = Object.keys(frame.sides), { x, y, w, h } = box;
  const sorted = sides.map((s) => Float32Array.from(array(frame, s, "sizes")).sort().reverse());
  const share = frame.sides.A.share;
  const high = 2 ** Math.ceil(Math.log2(Math.max(4, ...sorted.map((v) => (v[0] || 0) / share))));
  axes(ctx, box, 0, high, (v) => `${v} x`, text);
  const py = (v) => y + h - Math.min(1, v / share / high) * h;
  sides.forEach((side, n) => {
    const values = sorted[n], bar = w / values.length;
    if (sides.length === 1) {
      ctx.fillStyle = SIDES[side].code;
      values.forEach((v, i) => ctx.fillRect(x + i * bar, py(v), Math.max(bar - 0.6, 0.6), y + h - py(v)));
    } else line(ctx, values, (i) => x + (i + 0.5) * bar, py, side, 1.8);
    const { threshold } = frame.sides[side];
    if (threshold) rule(ctx, box, py(threshold), FLASH, [2, 2], n ? "" : "threshold");
  });
  rule(ctx, box, py(share), INK, [6, 4], "equal use");
}

function rule(ctx, { x, w }, y, color, dash, text) {
  ctx.beginPath();
  ctx.moveTo(x, y);
  ctx.lineTo(x + w, y);
  ctx.setLineDash(dash);
  ctx.strokeStyle = color;
  ctx.lineWidth = 1.2;
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.strokeStyle = "#fff"; // so that it can be read over bars
  ctx.lineWidth = 3;
  ctx.font = SMALL;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.strokeText(text, x + w, y - 7);
  label(ctx, text, x + w, y - 7, "right");
}

export default { render };
