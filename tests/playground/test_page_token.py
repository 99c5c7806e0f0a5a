"""`make playground`: the token is in no command line, and in no file that others can read."""

import stat
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("voila")

from tests import ROOT
from vqlib.playground import page


def test_kernels_are_encrypted_for_their_ports_are_open_to_all_users():
    assert page.settings().MappingKernelManager.transport_encryption == "auto"
    makefile = (ROOT / "Makefile").read_text()
    assert "--MappingKernelManager.transport_encryption=auto" in makefile
    specs = page.ThisPython()
    assert "curve" in specs.get_kernel_spec("python3").metadata["supported_encryption"]


def test_the_browser_is_given_a_private_file_and_not_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    asked, kept = [], []
    monkeypatch.setattr(webbrowser, "open", asked.append)
    monkeypatch.setattr(page.atexit, "register", lambda act, **_: kept.append(act))
    address = "http://127.0.0.1:8866/?token=secret&x=1"
    monkeypatch.setattr(page.Page, "display_url", address)
    page.Page().launch_browser()
    (url,) = asked
    file = Path(unquote(urlsplit(url).path))
    assert urlsplit(url).scheme == "file" and "secret" not in url
    assert 'url=http://127.0.0.1:8866/?token=secret&amp;x=1"' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    kept[0]()
    assert not file.exists()
