"""One scene of the playground, drawn by rival techniques: the half that runs in the kernel.

`bench_drawing.py` opens a notebook that calls `start`. Each technique has a `widget`, a `draw`
that shows the scene of one frame, and a `probe`: JavaScript that returns the number of the frame
now on the page, read from a patch in the picture's corner (or from the plot, where pixels cannot
be read), so what is measured is a picture and not a message.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass

import anywidget
import ipywidgets
import numpy as np
import traitlets

CODES, POINTS, CELLS, LENGTH = 64, 1024, 96, 200
WIDTH, HEIGHT = 900, 420
SHADES = 16  # the corner's red is the frame's number modulo this
CORNER = """
  if (!el || !el.width) return null;
  if (!window.benchProbe) {
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
    window.benchProbe = canvas.getContext('2d', {willReadFrequently: true});
  }
  window.benchProbe.drawImage(el, 4, 4, 1, 1, 0, 0, 1, 1);
  const [red, green, blue, alpha] = window.benchProbe.getImageData(0, 0, 1, 1).data;
  const whole = alpha && green < 24 && Math.abs(blue - 128) < 24;  // else it is half drawn
  return whole ? Math.floor(red / 16) : null;
"""


@dataclass(frozen=True)
class Scene:
    """What one frame shows: arrays only."""

    points: np.ndarray  # (POINTS, 2) in 0..1
    codes: np.ndarray  # (CODES, 2) in 0..1
    cells: np.ndarray  # (CELLS, CELLS) nearest code of each place
    curves: np.ndarray  # (3, LENGTH) in 0..1
    counts: np.ndarray  # (CODES,)

    @classmethod
    def at(cls, frame: int) -> Scene:
        """New data for each frame, at next to no cost."""
        random = np.random.default_rng(frame)
        ramp = (np.arange(LENGTH) + frame) / 40
        return cls(
            random.random((POINTS, 2), np.float32),
            random.random((CODES, 2), np.float32),
            np.roll(np.arange(CELLS * CELLS) // 144 % CODES, frame)
            .reshape(CELLS, CELLS)
            .astype(np.uint8),
            np.stack([0.5 + 0.4 * np.sin(ramp + k) for k in range(3)]).astype(np.float32),
            random.random(CODES, np.float32),
        )


def patch(frame: int) -> tuple[int, int, int]:
    """The corner: red in the middle of its step, so that JPEG does not move it out."""
    return frame % SHADES * 16 + 8, 0, 128


class Matplotlib:
    """Artists made once, their data changed, the canvas encoded into an ipywidgets.Image."""

    def __init__(self, encoding: str = "png"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.encoding = encoding
        figure = Figure((WIDTH / 100, HEIGHT / 100), dpi=100)
        self.canvas = FigureCanvasAgg(figure)
        world, curves, bars = figure.subplots(1, 3)
        first = Scene.at(0)
        self.cells = world.imshow(first.cells, extent=(0, 1, 0, 1), cmap="twilight", vmax=CODES)
        (self.points,) = world.plot(*first.points.T, ".", ms=2)
        (self.codes,) = world.plot(*first.codes.T, "o", ms=5)
        self.curves = curves.plot(first.curves.T)
        self.bars = bars.bar(range(CODES), first.counts)
        self.widget = ipywidgets.Image(format=encoding)
        self.probe = "const el = document.querySelector('img.widget-image');" + CORNER.replace(
            "!el.width", "!el.complete || !el.naturalWidth"
        )

    def draw(self, frame: int) -> None:
        from PIL import Image

        scene = Scene.at(frame)
        self.cells.set_data(scene.cells)
        self.points.set_data(*scene.points.T)
        self.codes.set_data(*scene.codes.T)
        for line, curve in zip(self.curves, scene.curves, strict=True):
            line.set_ydata(curve)
        for bar, count in zip(self.bars, scene.counts, strict=True):
            bar.set_height(count)
        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3].copy()
        pixels[:16, :16] = patch(frame)
        options = {"quality": 85} if self.encoding == "jpeg" else {"compress_level": 1}
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, self.encoding, **options)
        self.widget.value = file.getvalue()


class Plotly:
    """A FigureWidget whose traces are updated in one batch; WebGL for the points."""

    probe = """
      const plot = document.querySelector('.js-plotly-plot');
      if (!plot || !plot.on) return null;
      if (!plot.benched) {
        plot.benched = true;
        plot.shown = plot.data[1].meta;
        plot.on('plotly_afterplot', () => { plot.shown = plot.data[1].meta; });
      }
      return plot.shown;
    """

    def __init__(self):
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        first = Scene.at(0)
        figure = make_subplots(1, 3)
        figure.add_trace(go.Heatmap(z=first.cells, showscale=False), 1, 1)
        for places, size in ((first.points, 2), (first.codes, 6)):
            x, y = places.T * CELLS
            figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker={"size": size}), 1, 1)
        for curve in first.curves:
            figure.add_trace(go.Scatter(y=curve, mode="lines"), 1, 2)
        figure.add_trace(go.Bar(y=first.counts), 1, 3)
        figure.update_layout(width=WIDTH, height=HEIGHT, showlegend=False)
        self.widget = go.FigureWidget(figure)

    def draw(self, frame: int) -> None:
        scene = Scene.at(frame)
        cells, points, codes, *curves, bars = self.widget.data
        with self.widget.batch_update():
            cells.z = scene.cells
            points.x, points.y = scene.points.T * CELLS
            points.meta = frame % SHADES
            codes.x, codes.y = scene.codes.T * CELLS
            for line, curve in zip(curves, scene.curves, strict=True):
                line.y = curve
            bars.y = scene.counts


class Buffers(anywidget.AnyWidget):
    """A canvas that draws what binary buffers hold; the drawing is done in the page."""

    _esm = (
        """
    export default { render({ model, el }) {
      const canvas = Object.assign(document.createElement('canvas'),
        {width: WIDTH, height: HEIGHT, className: 'bench-canvas'});
      el.append(canvas);
      const pen = canvas.getContext('2d');
      const small = Object.assign(document.createElement('canvas'), {width: CELLS, height: CELLS});
      const ink = small.getContext('2d');
      const image = ink.createImageData(CELLS, CELLS);
      const palette = new Uint32Array(256).map((_, i) => 0xff000000 | (i * 2654435761 & 0xffffff));
      const view = new Uint32Array(image.data.buffer);
      model.on('msg:custom', (content, buffers) => {
        const [points, codes, curves, counts] = buffers.slice(0, 4).map(
          (b) => new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength)));
        const cells = new Uint8Array(buffers[4].buffer, buffers[4].byteOffset, CELLS * CELLS);
        for (let i = 0; i < cells.length; i++) view[i] = palette[cells[i]];
        ink.putImageData(image, 0, 0);
        pen.fillStyle = 'white'; pen.fillRect(0, 0, WIDTH, HEIGHT);
        pen.imageSmoothingEnabled = false; pen.drawImage(small, 10, 20, 280, 280);
        pen.fillStyle = '#0072b2';
        for (let i = 0; i < points.length; i += 2)
          pen.fillRect(10 + 280 * points[i], 20 + 280 * points[i + 1], 2, 2);
        pen.fillStyle = '#d55e00'; pen.beginPath();
        for (let i = 0; i < codes.length; i += 2) {
          const x = 10 + 280 * codes[i], y = 20 + 280 * codes[i + 1];
          pen.moveTo(x + 4, y); pen.arc(x, y, 4, 0, 7);
        }
        pen.fill();
        for (let k = 0; k < 3; k++) {
          pen.beginPath();
          for (let i = 0; i < LENGTH; i++)
            pen.lineTo(310 + 280 * i / LENGTH, 300 - 280 * curves[k * LENGTH + i]);
          pen.stroke();
        }
        counts.forEach((c, i) => pen.fillRect(610 + 4.3 * i, 300 - 280 * c, 3.5, 280 * c));
        pen.fillStyle = `rgb(${content.patch})`;
        pen.fillRect(0, 0, 16, 16);
      });
    } };
    """.replace("WIDTH", str(WIDTH))
        .replace("HEIGHT", str(HEIGHT))
        .replace("CELLS", str(CELLS))
        .replace("LENGTH", str(LENGTH))
    )
    probe = "const el = document.querySelector('canvas.bench-canvas');" + CORNER

    @property
    def widget(self) -> anywidget.AnyWidget:
        return self

    def draw(self, frame: int) -> None:
        scene = Scene.at(frame)
        arrays = (scene.points, scene.codes, scene.curves, scene.counts, scene.cells)
        self.send({"patch": patch(frame)}, [np.ascontiguousarray(a).data.cast("B") for a in arrays])


class IPyCanvas:
    """ipycanvas: the same strokes, told one by one (or in its batches) from Python."""

    probe = "const el = document.querySelector('.ipycanvas, canvas');" + CORNER

    def __init__(self):
        import ipycanvas

        self.hold = ipycanvas.hold_canvas
        self.widget = ipycanvas.Canvas(width=WIDTH, height=HEIGHT)
        random = np.random.default_rng(0)
        self.palette = random.integers(0, 255, (256, 3), np.uint8)

    def draw(self, frame: int) -> None:
        scene, pen = Scene.at(frame), self.widget
        with self.hold():
            pen.fill_style = "white"
            pen.fill_rect(0, 0, WIDTH, HEIGHT)
            pen.put_image_data(np.kron(self.palette[scene.cells], np.ones((3, 3, 1))), 10, 20)
            pen.fill_style = "#0072b2"
            pen.fill_rects(10 + 280 * scene.points[:, 0], 20 + 280 * scene.points[:, 1], 2)
            pen.fill_style = "#d55e00"
            pen.fill_circles(10 + 280 * scene.codes[:, 0], 20 + 280 * scene.codes[:, 1], 4)
            across = 310 + 280 * np.arange(LENGTH) / LENGTH
            for curve in scene.curves:
                pen.stroke_lines(np.stack([across, 300 - 280 * curve], 1))
            heights = 280 * scene.counts
            pen.fill_rects(610 + 4.3 * np.arange(CODES), 300 - heights, 3.5, heights)
            pen.fill_style = f"rgb{patch(frame)}"
            pen.fill_rect(0, 0, 16, 16)


TECHNIQUES = {
    "matplotlib, PNG": lambda: Matplotlib("png"),
    "matplotlib, JPEG": lambda: Matplotlib("jpeg"),
    "plotly FigureWidget": Plotly,
    "ipycanvas": IPyCanvas,
    "anywidget, buffers": Buffers,
}


class Clock(anywidget.AnyWidget):
    """Looks at every animation frame which picture is shown, and tells the kernel when."""

    probe = traitlets.Unicode().tag(sync=True)
    result = traitlets.Unicode().tag(sync=True)
    _esm = """
    export default { render({ model, el }) {
      const probe = new Function(model.get('probe'));
      let last = null;
      const look = () => {
        const shown = probe();
        if (shown !== null && shown !== undefined && shown !== last) {
          last = shown;
          model.send({ shown, at: performance.timeOrigin + performance.now() });
        }
        if (!model.get('result')) requestAnimationFrame(look);
      };
      model.on('change:result', () => {
        el.className = 'bench-result'; el.textContent = model.get('result');
      });
      setTimeout(() => { requestAnimationFrame(look); model.send('ready'); }, 1000);
    } };
    """


class Meter:
    """Keeps `in_flight` frames under way and notes when each was begun and seen."""

    def __init__(self, technique, seconds: float, in_flight: int):
        self.technique, self.seconds, self.in_flight = technique, seconds, in_flight
        self.clock = Clock(probe=technique.probe)
        self.clock.on_msg(self.heard)
        self.begun: dict[int, float] = {}
        self.latencies: list[float] = []
        self.sent, self.seen, self.start = 0, 0, None

    def next(self) -> None:
        """Begin another frame."""
        self.sent += 1
        self.begun[self.sent] = time.time()
        self.technique.draw(self.sent)

    def heard(self, _, content, __) -> None:
        """The page is ready, or shows another picture."""
        if content != "ready" and not self.clock.result:
            self.note(int(content["shown"]), content["at"] / 1000)
        while not self.clock.result and self.sent - self.seen < self.in_flight:
            self.next()

    def note(self, shown: int, at: float) -> None:
        frame = self.sent - (self.sent - shown) % SHADES
        if frame <= self.seen:
            return
        self.seen = frame
        if self.start is None:  # the first picture: everything is loaded
            self.start = at
            return
        self.latencies.append(at - self.begun[frame])
        if at - self.start > self.seconds:
            self.finish(at - self.start)

    def finish(self, seconds: float) -> None:
        p50, p95 = np.percentile(self.latencies, (50, 95)) * 1000
        frames = len(self.latencies)
        result = {"fps": frames / seconds, "p50": p50, "p95": p95, "frames": frames}
        self.clock.result = json.dumps(result)


def start(name: str, seconds: float, in_flight: int) -> ipywidgets.Widget:
    """The widgets of one measurement; the page shows its result when it is over."""
    technique = TECHNIQUES[name]()
    meter = Meter(technique, seconds, in_flight)
    box = ipywidgets.VBox([technique.widget, meter.clock])
    box.meter = meter  # lives as long as its widgets
    return box
