// Draws what the kernel sends: curves, histogram, reconstructions; and the table of runs.

const CHARTS = [
  { column: 1, title: "Utilization", top: 1, format: (v) => `${Math.round(100 * v)}%` },
  { column: 2, title: "Perplexity", format: short },
  { column: 3, title: "Reconstruction error (MSE)", format: short },
];
const WIDTH = 4; // columns of a curve: step and three measures
const HEADINGS = ["Show", "Run", "State", "Settings", "Utilization", "Perplexity", "Error", ""];

function short(value) {
  return Number(value.toPrecision(2)).toString();
}

function floats(view) {
  if (!view || !view.byteLength) return new Float32Array(0);
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A canvas as sharp as the screen, with the page's own colours.
function prepared(canvas, height) {
  const width = canvas.clientWidth;
  const ratio = window.devicePixelRatio || 1;
  const wide = Math.round(width * ratio);
  const high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const ink = getComputedStyle(canvas).color;
  pen.strokeStyle = pen.fillStyle = ink;
  pen.font = "11px sans-serif";
  pen.textAlign = "left";
  pen.lineWidth = 1;
  return { pen, width, height, ink };
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high * 1.0001; v += step) found.push(v);
  return found;
}

function drawCurves(canvas, chart, lines) {
  const { pen, width, height, ink } = prepared(canvas, 190);
  const box = { left: 44, right: width - 10, top: 24, bottom: height - 32 };
  let last = 10;
  let top = chart.top || 0;
  for (const line of lines) {
    for (const rows of [line.trainRows, line.valRows]) {
      for (let i = 0; i < rows.length; i += WIDTH) {
        last = Math.max(last, rows[i]);
        if (!chart.top && isFinite(rows[i + chart.column])) top = Math.max(top, rows[i + chart.column]);
      }
    }
  }
  top = (top || 1) * (chart.top ? 1.03 : 1.08);
  const x = (step) => box.left + ((box.right - box.left) * step) / last;
  const y = (value) => box.bottom - ((box.bottom - box.top) * value) / top;
  pen.font = "bold 12px sans-serif";
  pen.fillText(chart.title, 4, 13);
  pen.font = "11px sans-serif";
  pen.textAlign = "right";
  for (const v of ticks(0, top, 4)) {
    pen.globalAlpha = 0.15;
    pen.fillRect(box.left, Math.round(y(v)), box.right - box.left, 1);
    pen.globalAlpha = 0.8;
    pen.fillText(chart.format(v), box.left - 5, y(v) + 4);
  }
  pen.textAlign = "center";
  for (const v of ticks(0, last, 4)) pen.fillText(String(Math.round(v)), x(v), box.bottom + 14);
  pen.fillText("training step", (box.left + box.right) / 2, height - 4);
  pen.globalAlpha = 1;
  pen.save();
  pen.beginPath();
  pen.rect(box.left - 5, box.top - 6, box.right - box.left + 10, box.bottom - box.top + 11);
  pen.clip();
  for (const line of lines) drawLine(pen, line, chart.column, x, y);
  pen.restore();
  pen.strokeStyle = ink;
}

function drawLine(pen, line, column, x, y) {
  const dense = line.trainRows.length > 300 * WIDTH;
  pen.strokeStyle = line.color;
  pen.lineWidth = dense ? 1 : 1.7;
  pen.setLineDash(line.dash);
  pen.beginPath();
  let drawing = false; // a value that is no number leaves a gap
  for (let i = 0; i < line.trainRows.length; i += WIDTH) {
    const value = line.trainRows[i + column];
    if (isFinite(value)) pen[drawing ? "lineTo" : "moveTo"](x(line.trainRows[i]), y(value));
    drawing = isFinite(value);
  }
  pen.stroke();
  pen.setLineDash([]);
  for (let i = 0; i < line.valRows.length; i += WIDTH) {
    if (!isFinite(line.valRows[i + column])) continue;
    pen.beginPath();
    pen.arc(x(line.valRows[i]), y(line.valRows[i + column]), dense ? 2 : 3, 0, 2 * Math.PI);
    pen.stroke();
  }
}

function drawBars(canvas, bars) {
  const { pen, width, height } = prepared(canvas, 150);
  const counts = floats(bars.counts);
  if (!counts.length) return "no run is shown";
  const box = { left: 44, right: width - 10, top: 24, bottom: height - 20 };
  const unused = counts.filter((c) => c === 0).length;
  const high = Math.log10(Math.max(10, counts[0]));
  const y = (count) => box.bottom - ((box.bottom - box.top) * (Math.log10(count) + 0.3)) / (high + 0.3);
  pen.font = "bold 12px sans-serif";
  pen.fillText(`${unused} of ${counts.length} codes unused`, 4, 13);
  pen.font = "11px sans-serif";
  pen.globalAlpha = 0.8;
  pen.textAlign = "right";
  for (let power = 0; power <= high; power++) pen.fillText(short(10 ** power), box.left - 5, y(10 ** power) + 4);
  pen.textAlign = "center";
  pen.fillText(`most used first; ${bars.where}`, (box.left + box.right) / 2, height - 5);
  pen.globalAlpha = 1;
  const step = (box.right - box.left) / counts.length;
  pen.globalAlpha = 0.15;
  pen.fillRect(box.left, box.bottom, box.right - box.left, 1);
  pen.globalAlpha = 1;
  pen.fillStyle = bars.color;
  counts.forEach((count, i) => {
    if (count > 0) pen.fillRect(box.left + i * step, y(count), Math.max(step, 0.6), box.bottom - y(count));
  });
  return `${unused} of ${counts.length} codes unused in ${bars.where}`;
}

function drawStrip(canvas, strip) {
  const { pen, width, height } = prepared(canvas, 150);
  if (!strip.size) return "no run is shown";
  const [count, h, w] = strip.size;
  const side = Math.min(56, (width - 60) / count - 4);
  pen.font = "bold 12px sans-serif";
  pen.fillText("Pictures never trained on, and what the model makes of them", 4, 13);
  pen.imageSmoothingEnabled = false;
  [strip.originals, strip.reconstructions].forEach((view, row) => {
    for (let i = 0; i < count; i++) {
      pen.drawImage(tile(view, i, h, w), 4 + i * (side + 4), 20 + row * (side + 3), side, (side * h) / w);
    }
  });
  pen.font = "10px sans-serif";
  pen.textAlign = "center";
  strip.errors.forEach((error, i) => {
    pen.fillText(error.toFixed(4), 4 + i * (side + 4) + side / 2, 20 + 2 * (side + 3) + 9);
  });
  return `${count} pictures and their reconstructions, errors ${strip.errors.map((e) => e.toFixed(4)).join(", ")}`;
}

function tile(view, index, h, w) {
  const image = new ImageData(w, h);
  const start = index * h * w * 3;
  for (let p = 0; p < h * w; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = view.getUint8(start + 3 * p + c);
    image.data[4 * p + 3] = 255;
  }
  const canvas = new OffscreenCanvas(w, h);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function sample(row) {
  const dash = row.dash.join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of Object.entries({ width: 34, height: 8, "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({ d: "M0 4H34", stroke: row.color, "stroke-width": 2.5, "stroke-dasharray": dash })) path.setAttribute(name, value);
  svg.append(path);
  return svg;
}

function tableRow(row, ask) {
  const tick = element("input", { type: "checkbox", "aria-label": `show the curves of ${row.name}` });
  tick.checked = row.shown;
  tick.addEventListener("change", () => ask("show", row.name, tick.checked));
  const word = row.state === "under way" ? "Follow" : "Restore";
  const restore = element("button", { class: "vq-restore", "aria-label": `${word} ${row.name}`,
    title: "Put the controls back to these settings, and show its use of codes and pictures" }, word);
  restore.addEventListener("click", () => ask("restore", row.name));
  const actions = element("td", {}, restore);
  if (row.resumable) {
    const resume = element("button", { class: "vq-resume", "aria-label": `resume ${row.name}`,
      title: "Resume from its last checkpoint, as if it had never stopped" }, "Resume");
    resume.addEventListener("click", () => ask("resume", row.name));
    actions.append(resume);
  }
  const [used, perplexity, error] = row.results;
  const number = (value, text) => element("td", { class: "vq-number" }, value === null ? "–" : text(value));
  const state = ["finished", "unreadable", "under way"].includes(row.state)
    ? row.state : `${row.state} at ${row.step} of ${row.steps ?? "?"}`;
  const made = element("tr", { "data-run": row.name, "data-state": row.state },
    element("td", {}, tick, sample(row)), element("th", { scope: "row" }, row.name),
    element("td", { title: row.problem }, state), element("td", { class: "vq-settings" }, row.settings),
    number(used, (v) => `${Math.round(100 * v)}%`), number(perplexity, (v) => v.toFixed(1)),
    number(error, (v) => v.toFixed(4)), actions);
  if (row.focus) made.setAttribute("aria-current", "true");
  return made;
}

function render({ model, el }) {
  const canvas = (css) => element("canvas", { class: css, role: "img" });
  const charts = CHARTS.map(() => canvas("vq-curves"));
  const bars = canvas("vq-bars");
  const strip = canvas("vq-strip");
  const key = element("div", { class: "vq-key" }, "Lines: training, each step. Circles: validation.");
  const body = element("tbody");
  const head = element("tr", {}, ...HEADINGS.map((text) => element("th", { scope: "col" }, text)));
  const table = element("table", {},
    element("caption", {}, "Runs, newest first. Utilization, perplexity and error: validation."),
    element("thead", {}, head), body);
  const empty = element("div", { class: "vq-empty" }, "No run yet: choose settings and press Train.");
  el.append(element("div", { class: "vq-pictures" }, ...charts, bars, strip), key,
    element("div", { class: "vq-table" }, table, empty));
  const ask = (action, run, on) => model.send({ do: action, run, on });

  let lines = [];
  const decode = (line) => ({ ...line, trainRows: floats(line.train), valRows: floats(line.val) });
  const takeLines = () => (lines = model.get("lines").map(decode));
  function drawAllCurves() {
    const live = model.get("live");
    const shown = live.name ? [...lines, decode(live)] : lines;
    CHARTS.forEach((chart, i) => {
      drawCurves(charts[i], chart, shown);
      charts[i].setAttribute("aria-label", `${chart.title} over training steps of ${shown.length} runs`);
    });
  }
  function drawTable() {
    const rows = model.get("rows");
    const active = el.ownerDocument.activeElement;
    const place = body.contains(active) && [active.closest("tr").dataset.run, active.className];
    body.replaceChildren(...rows.map((row) => tableRow(row, ask)));
    table.hidden = !rows.length;
    empty.hidden = rows.length > 0;
    if (!place) return; // the keyboard's place is kept
    const again = [...body.children].find((row) => row.dataset.run === place[0]);
    again?.querySelector(place[1] ? `.${place[1]}` : "input")?.focus();
  }
  const jobs = {
    curves: drawAllCurves,
    bars: () => bars.setAttribute("aria-label", drawBars(bars, model.get("bars"))),
    strip: () => strip.setAttribute("aria-label", drawStrip(strip, model.get("strip"))),
    table: drawTable,
  };
  const due = new Set();
  let frame = 0;
  function later(...names) {
    names.forEach((name) => due.add(name));
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      const now = [...due];
      due.clear();
      now.forEach((name) => jobs[name]());
    });
  }
  const handlers = {
    "change:lines": () => { takeLines(); later("curves"); },
    "change:live": () => later("curves"),
    "change:bars": () => later("bars"),
    "change:strip": () => later("strip"),
    "change:rows": () => later("table"),
  };
  for (const [event, handler] of Object.entries(handlers)) model.on(event, handler);
  const resized = new ResizeObserver(() => later("curves", "bars", "strip"));
  resized.observe(el);
  takeLines();
  later(...Object.keys(jobs));
  return () => {
    resized.disconnect();
    cancelAnimationFrame(frame);
    for (const [event, handler] of Object.entries(handlers)) model.off(event, handler);
  };
}

export default { render };
