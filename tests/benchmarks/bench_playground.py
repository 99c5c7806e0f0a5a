"""How smooth the playground is in a real browser: frames a second, delay, and memory over minutes.

JupyterLab and headless Chromium on this machine; the guide's reset at K 64 and 1,024 tokens a step.
A delay is the time from a key on a slider until the canvas has drawn what came of it, by the
page's clock. Memory is read while it plays: the page's heap after a collection, its DOM nodes, and
the kernel's resident memory. Run it with `make bench`; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

from tests.benchmarks.goals import within
from tests.browser import servers
from tests.browser.pages import Lab

SOURCE = """\
from vqlib.playground import Playground
play = Playground(codebook_size=64, tokens=1024, threshold=1.0, speed=60)
play"""
RESIDENT = "int(open('/proc/self/statm').read().split()[1]) * 4096 // 1024"
CANVAS = "document.querySelector('.vq-canvas').dataset"
MOVES = 40
SEEN = 1000.0  # ms from a key to the picture; slower than that, a slider feels broken
SMOOTH = 10.0  # frames a second


def drawn(notebook: Lab) -> int:
    return int(notebook.page.evaluate(f"() => {CANVAS}.drawn || 0"))


def frames_a_second(notebook: Lab, seconds: float) -> float:
    """While it plays, and while nothing is moved."""
    before, start = drawn(notebook), time.monotonic()
    notebook.page.wait_for_timeout(1000 * seconds)
    return (drawn(notebook) - before) / (time.monotonic() - start)


def delays(notebook: Lab, when: str) -> str:
    """Median and 95th percentile, in ms, of moves of the threshold: a row of the table."""
    keys = ["ArrowRight", "ArrowLeft"] * (MOVES // 2)
    seconds = notebook.seconds_to_show(".vq-threshold", f"{CANVAS}.revision", keys)
    ms = [1000 * second for second in seconds]
    middle = within(statistics.median(ms), SEEN, f"ms from a key to the picture: {when}")
    return f"delay, {when:<10}{middle:>12}{statistics.quantiles(ms, n=20)[-1]:10.0f}"


def memory(notebook: Lab, session) -> tuple[float, int, float]:
    """(MB of the page's heap, its nodes, MB of the kernel)."""
    session.send("HeapProfiler.collectGarbage")
    found = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    return found["JSHeapUsedSize"] / 1e6, int(found["Nodes"]), notebook.kernel(RESIDENT) / 1e3


def measure(notebook: Lab, minutes: float, samples: int) -> None:
    notebook.run_all(timeout=120)
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    print("                    median ms   95 % ms")
    print(delays(notebook, "at rest"))
    notebook.page.locator(".vq-play").click()
    notebook.until(lambda: drawn(notebook) > 20)
    print(delays(notebook, "playing"))
    frames = within(frames_a_second(notebook, 10), SMOOTH, "frames a second", least=True)
    print(f"frames a second  {frames:>12}\n")
    print("minute   heap MB   nodes   kernel MB   frames/s")
    for sample in range(samples + 1):
        heap, nodes, kernel = memory(notebook, session)
        rate = frames_a_second(notebook, 60 * minutes / samples) if sample < samples else 0
        line = f"{minutes * sample / samples:6.1f}{heap:10.1f}{nodes:8d}{kernel:12.0f}"
        print(line + (f"{rate:11.1f}" if rate else ""), flush=True)
    assert not notebook.complaints(), notebook.complaints()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--samples", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root, chromium = Path(folder) / "root", servers.chromium(playwright)
        root.mkdir()
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        notebook = new_notebook(cells=[new_code_cell(SOURCE)], metadata=kernel)
        nbformat.write(notebook, root / "play.ipynb")
        with (
            playwright.chromium.launch(executable_path=chromium, args=servers.QUIET) as browser,
            servers.jupyterlab(root, Path(folder) / "home") as server,
        ):
            lab = Lab(browser, server)
            lab.open("play.ipynb")
            measure(lab, options.minutes, options.samples)


if __name__ == "__main__":
    main()
