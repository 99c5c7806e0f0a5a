"""A notebook in JupyterLab as a person uses it: open, run all, move sliders, look."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page

from tests.browser.servers import Server  # isort: skip

OPEN = 60_000  # ms until a page stands
CHANGE = 20_000  # ms until a move is seen; a busy machine is slow, a broken control never answers
# a kernel, and widgets that are drawn rather than printed
OPENED = """async (path) => {
  await window.jupyterapp.restored;
  await window.jupyterapp.commands.execute('docmanager:open', { path });
}"""
READY = """(path) => {
  const panel = window.jupyterapp.shell.currentWidget;
  return panel?.context?.path === path
    && panel.sessionContext?.session?.kernel?.status === 'idle'
    && panel.content.rendermime.mimeTypes.includes('application/vnd.jupyter.widget-view+json');
}"""
LEFT = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.sessionContext.shutdown();
  panel.dispose();
}"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter((cell) => cell.model.type === 'code' && cell.model.sharedModel.source.trim())
  .map((cell) => ({
    done: cell.model.executionCount !== null && cell.model.executionState !== 'running',
    errors: cell.model.outputs.toJSON().filter((output) => output.output_type === 'error')
      .map((output) => `${output.ename}: ${output.evalue}`),
  }))"""
ASK = """async (expression) => {
  const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
  const request = { code: '', store_history: false, user_expressions: { answer: expression } };
  return (await kernel.requestExecute(request).done).content.user_expressions.answer;
}"""
# how long from a key until the page shows what came of it, by the page's own clock
STOPWATCH = """([shown]) => {
  const look = new Function('return ' + shown);
  const watch = window.vqWatch = {times: [], pressed: () => {
    const start = performance.now(), before = look();
    const wait = () => look() !== before
      ? watch.times.push(performance.now() - start) : requestAnimationFrame(wait);
    requestAnimationFrame(wait);
  }};
  document.addEventListener('keydown', watch.pressed, true);
}"""
TIMES = """() => {
  document.removeEventListener('keydown', vqWatch.pressed, true);
  return vqWatch.times;
}"""


class Opened:
    """A page of a server, and every error that it has come to.

    Attributes:
        errors: what its console and its scripts complained of.
    """

    def __init__(self, browser: Browser, address: str):
        self.page: Page = browser.new_page(viewport={"width": 1400, "height": 1600})
        self.errors: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        self.address = address
        self.listen()
        self.page.goto(address, timeout=OPEN)

    def listen(self) -> None:
        """Called before the page is opened."""

    def _said(self, message) -> None:
        if message.type == "error":
            self.errors.append(f"console: {message.text}")

    def complaints(self) -> list[str]:
        """Errors of the console, and those that widgets of ours show."""
        shown = self.page.locator(".vq-error, .vq-wrong").all_text_contents()
        return self.errors + [f"page: {text}" for text in shown if text.strip()]

    def handle(self, row: str) -> Locator:
        """The knob of the slider in a row, which is named by its CSS selector."""
        return self.page.locator(f"{row} .noUi-handle").first

    def readout(self, row: str) -> float:
        """The number in a slider's typed field."""
        text = self.page.locator(f"{row} .widget-readout").first.text_content()
        return float(text.replace(",", ""))

    def drag(self, row: str, pixels: float) -> None:
        """Move a slider by mouse."""
        handle = self.handle(row)
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + pixels / 2, y, steps=3)
        self.page.mouse.move(x + pixels, y, steps=3)
        self.page.mouse.up()

    def press(self, row: str, key: str) -> None:
        """Move a slider by keyboard."""
        self.handle(row).focus()
        self.page.keyboard.press(key)

    def until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Wait until something holds. Raises AssertionError where it does not come to it."""
        end = time.monotonic() + CHANGE / 1000
        while not holds():
            assert time.monotonic() < end, f"not so after {CHANGE / 1000:g} s: {what or holds}"
            self.page.wait_for_timeout(30)

    def changed(self, look: Callable[[], object], before: object) -> None:
        """Wait until `look` returns something else. Raises AssertionError where it stays."""
        seen = "this picture" if isinstance(before, bytes) else repr(before)
        self.until(lambda: look() != before, f"changed from {seen}")

    def seconds_to_show(self, row: str, shown: str, keys: list[str]) -> list[float]:
        """Seconds, sorted, from each key on a slider until the expression `shown` changes."""
        self.page.evaluate(STOPWATCH, [shown])
        self.handle(row).focus()
        for count, key in enumerate(keys, 1):
            self.page.keyboard.press(key)
            self.page.wait_for_function("n => vqWatch.times.length >= n", arg=count, timeout=CHANGE)
        return sorted(ms / 1000 for ms in self.page.evaluate(TIMES))

    def close(self) -> None:
        """Leave the page."""
        self.page.close()


class Lab(Opened):
    """JupyterLab with one notebook at a time, which has a kernel of its own."""

    def __init__(self, browser: Browser, server: Server):
        super().__init__(browser, server.address("/lab") + "&reset")
        self.page.wait_for_function("() => window.jupyterapp?.shell", timeout=OPEN)

    def open(self, name: str) -> None:
        """Open a notebook of the server's folder, and forget what others complained of."""
        self.page.evaluate(OPENED, name)
        self.page.wait_for_function(READY, arg=name, timeout=OPEN)
        self.errors.clear()

    def run_all(self, timeout: float) -> None:
        """Run all cells from the menu. Raises AssertionError for an error in one."""
        self.page.get_by_role("menuitem", name=re.compile("^Run$")).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            cells = self.page.evaluate(CELLS)
            assert not (found := [error for cell in cells for error in cell["errors"]]), found
            if all(cell["done"] for cell in cells):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"not finished in {timeout:g} s")

    def kernel(self, expression: str):
        """What an expression is worth in the kernel: a literal."""
        answer = self.page.evaluate(ASK, expression)
        assert answer["status"] == "ok", answer
        return ast.literal_eval(answer["data"]["text/plain"])

    def leave(self) -> None:
        """Close the notebook, unsaved, and end its kernel."""
        self.page.evaluate(LEFT)


def still(locator: Locator, path: Path | None = None) -> bytes:
    """What an element looks like, as PNG."""
    return locator.screenshot(path=path, animations="disabled")
