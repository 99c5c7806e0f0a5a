"""`make playground`: the playground as a page without code."""

import json
import socket

import pytest

from tests.browser import servers
from tests.browser.pages import Opened, still


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page, where another ``python3`` is registered that cannot start."""
    home = tmp_path_factory.mktemp("page")
    foreign = home / "data" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "Other", "language": "python"}
    foreign.write_text(json.dumps(spec), encoding="utf-8")
    settings = {"VQLIB_RUNS": str(home / "runs"), "JUPYTER_PATH": str(home / "data")}
    with servers.page(home, **settings) as served:
        yield served


def test_the_page_plays_and_shows_no_code(browser, server, pictures):
    opened = Opened(browser, server.address("/"))
    page = opened.page
    canvas = page.locator("canvas.vq-canvas")
    canvas.wait_for(timeout=60_000)
    opened.until(lambda: canvas.get_attribute("data-step") is not None, "a first picture")
    seen, step = still(canvas), int(canvas.get_attribute("data-step"))
    page.locator(".vq-play").click()
    opened.until(lambda: int(canvas.get_attribute("data-step")) > step + 20, "the steps go on")
    assert still(canvas) != seen
    page.locator(".vq-train").wait_for()
    assert page.title() == "A codebook you can watch die"
    assert "import" not in page.inner_text("body")
    page.screenshot(path=pictures / "page.png", full_page=True)
    assert opened.complaints() == []
    opened.close()


def test_nobody_else_is_let_in(browser, server):
    stranger = browser.new_context().new_page()
    stranger.goto(server.url)
    assert stranger.locator("canvas").count() == 0 and "Password" in stranger.inner_text("body")
    stranger.close()
    port = int(server.url.rsplit(":", 1)[1])
    for _, _, _, _, address in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET):
        if not address[0].startswith("127."):
            with socket.socket() as probe:
                assert probe.connect_ex(address) != 0, f"listens on {address}"
