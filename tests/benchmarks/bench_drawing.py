"""Which technique draws the playground's scene fast enough: frames a second in a real browser.

Each technique shows the same scene (64 codes, 1,024 points, a map of 96 x 96 cells, three curves,
a histogram; new data in every frame) in JupyterLab, in headless Chromium. Frames a second are
measured with two frames under way, the time from the kernel's data to the picture with one.
Bytes are those of the kernel's websocket. plotly and ipycanvas are no dependencies of ours: a
technique that is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "browser"))

import servers  # noqa: E402

# a kernel, and widgets that are drawn rather than printed
READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  return panel?.sessionContext?.session?.kernel
    && panel.content.rendermime.mimeTypes.includes('application/vnd.jupyter.widget-view+json');
}"""
NEEDS = {
    "matplotlib, PNG": "matplotlib",
    "matplotlib, JPEG": "matplotlib",
    "plotly FigureWidget": "plotly",
    "ipycanvas": "ipycanvas",
    "anywidget, buffers": "anywidget",
}


def measure(browser, server, technique: str, seconds: float, in_flight: int) -> dict[str, float]:
    """What one technique comes to: fps, p50 and p95 in ms, frames, bytes a frame."""
    name = "bench.ipynb"
    source = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport drawing_techniques\n"
    source += f"box = drawing_techniques.start({technique!r}, {seconds}, {in_flight})\nbox"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = new_notebook(cells=[new_code_cell(source)], metadata=kernel)
    nbformat.write(notebook, server.root / name)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    received = []
    page.on(
        "websocket",
        lambda socket: socket.on("framereceived", lambda data: received.append(len(data))),
    )
    page.goto(server.address(f"/lab/tree/{name}"))
    page.wait_for_function(READY, timeout=30000)
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_selector(".bench-result", timeout=1000 * (seconds + 30))
    result = json.loads(page.inner_text(".bench-result"))
    page.screenshot(path=str(server.root / "last.png"))
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
    return result | {"bytes": sum(received) / max(1, result["frames"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", help="one technique")
    parser.add_argument("--pictures", type=Path, help="folder for a screenshot of each")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=servers.chromium(playwright), args=servers.QUIET
        ) as browser,
    ):
        root = Path(folder) / "root"
        root.mkdir()
        with servers.jupyterlab(root, Path(folder) / "home") as server:
            print("technique                 frames/s   p50 ms   p95 ms   kB a frame")
            for technique, package in NEEDS.items():
                if options.only not in (None, technique):
                    continue
                if importlib.util.find_spec(package) is None:
                    print(f"{technique:26}left out: {package} is not installed")
                    continue
                fast = measure(browser, server, technique, options.seconds, 2)
                one = measure(browser, server, technique, options.seconds, 1)
                if options.pictures:
                    options.pictures.mkdir(parents=True, exist_ok=True)
                    (root / "last.png").replace(options.pictures / f"{package}.png")
                print(
                    f"{technique:26}{fast['fps']:8.1f}{one['p50']:9.0f}{one['p95']:9.0f}"
                    f"{one['bytes'] / 1000:13.1f}"
                )


if __name__ == "__main__":
    main()
