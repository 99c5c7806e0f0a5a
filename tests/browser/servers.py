"""JupyterLab or voila for the tests: on loopback, from this interpreter, with an empty home.

Nothing of the person who runs the tests has a say: settings, kernels and history are looked for
in a folder made for the purpose, so the only ``python3`` kernel is this very environment's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

QUIET = ["--disable-gpu", "--disable-background-networking"]  # a headless browser needs neither
START = 60.0  # seconds a server may take to answer
STOP = 15.0  # and to end its kernels
# JupyterLab asks about news on a first start, which would lie over the page
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": (
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
}


@dataclass(frozen=True)
class Server:
    """A running server: where it is, and what it has said so far."""

    url: str
    token: str
    root: Path
    log: Path
    pid: int

    def address(self, path: str) -> str:
        """The address of a page, with the token."""
        return f"{self.url}{path}?token={self.token}"


@contextlib.contextmanager
def jupyterlab(root: Path, home: Path, **environment: str) -> Iterator[Server]:
    """JupyterLab over the folder `root`. `environment` is added to the kernels' own."""
    for name, text in SETTINGS.items():
        (home / "settings" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "settings" / name).write_text(text, encoding="utf-8")
    command = [
        "jupyterlab",
        "--no-browser",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={root}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        "--ServerApp.port={port}",
        *as_root(),
    ]
    with _serving(command, root, home, "/api/status", environment) as server:
        yield server


@contextlib.contextmanager
def page(home: Path, **environment: str) -> Iterator[Server]:
    """The playground's page, as `make playground` serves it."""
    home.mkdir(parents=True, exist_ok=True)
    command = ["vqlib.playground.page", "--no-browser", "--port={port}", "--Voila.port_retries=0"]
    with _serving(command, home, home, "/", environment) as server:
        yield server


def as_root() -> list[str]:
    """The flag that Jupyter wants where the tests run as root, as containers do."""
    return ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []


@contextlib.contextmanager
def _serving(
    command: Sequence[str], root: Path, home: Path, ready: str, environment: dict[str, str]
) -> Iterator[Server]:
    home.mkdir(parents=True, exist_ok=True)
    port, token, log = free_port(), secrets.token_hex(16), home / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in command)],
            cwd=root,
            env=os.environ | isolated(home) | {"JUPYTER_TOKEN": token} | environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", token, root, log, process.pid)
    try:
        _wait(server, process, ready)
        yield server
    finally:
        _end(process)


def isolated(home: Path) -> dict[str, str]:
    """An environment in which Jupyter finds nothing but what is installed here."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {name: str(home / folder) for name, folder in folders.items()} | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: Server, process: subprocess.Popen, path: str) -> None:
    request = urllib.request.Request(
        server.url + path, headers={"Authorization": f"token {server.token}"}
    )
    end = time.monotonic() + START
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except urllib.error.HTTPError:  # also a refusal is an answer
            return
        except OSError:
            time.sleep(0.1)
    tail = server.log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"no answer from {server.url}{path} within {START:g} s:\n{tail}")


def _end(process: subprocess.Popen) -> None:
    """Ask the server to end with its kernels, then make sure of it."""
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def chromium(playwright) -> str | None:
    """The path of a Chromium or Chrome: the system's, else Playwright's own, else None."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None
