"""Names that would like to be a program, on every page that we make, in a real browser.

On each page: no dialog, no complaint of the console, no request, nothing that could be executed,
no link to a program, no wider page; and each name is read as it was written.
"""

import json
import shutil
from dataclasses import replace

import jinja2
import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Error
from torch import nn

import vqlib
from tests.browser import servers
from tests.browser.pages import CHANGE, OPEN, Opened
from tests.diagnosis.histories import healthy
from tests.training.tiny_training import quiet, tiny
from vqlib import cli
from vqlib.diagnosis import field, findings
from vqlib.diagnosis.findings import Diagnosis, Evidence, Finding
from vqlib.suite import pages, report, site
from vqlib.suite.costs import Cost
from vqlib.suite.executing import WIDGET_STATE
from vqlib.suite.gates import Gate, Verdict
from vqlib.suite.records import MIME
from vqlib.suite.results import Result

NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "javascript:alert(1);x",
    "</title><script>alert(2)<!--",
    "</style></main><script>alert(3)//",
    "&lt;b&gt;",
    "{{ 7 * 7 }}{% raw %}",
    "a\u202edesrever\u200f",
)
ALL = " ".join(NAMES)
LONG = "x" * 10_000
FILE = NAMES[0].replace("/", "\u2215")  # as far as a file can be called so
LINKS = (
    "javascript:alert(1)",
    "JaVaScRiPt:alert(2)",
    "java&#10;script:alert(3)",
    "data:text/html,x",
)
EVIL_HTML = """<img src=x onerror=alert(4)><svg onload=alert(5)><use href='http://a.example/#b'/></svg>
<iframe srcdoc='<script>alert(6)</script>'></iframe><object data='x'></object>
<base href='http://a.example'>
<meta http-equiv=refresh content='0;url=http://a.example'><form action='http://a.example'><input></form>
<link rel=stylesheet href=x.css><video poster=x src=x></video><a href=javascript:alert(7)>a</a>
<p id=kept style='color:red'>kept</p>"""
PROGRAMS = """() => [...document.querySelectorAll('*')].flatMap((e) => [
  ...(/^(SCRIPT|IFRAME|OBJECT|BASE|FORM|EMBED)$/.test(e.tagName) ? [e.tagName] : []),
  ...[...e.attributes].filter((a) => a.name.startsWith('on')).map((a) => a.name),
  ...(['javascript:', 'data:'].includes(e.protocol) ? [e.href] : []),
])"""
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# whether the text of an element goes from left to right
FORWARD = """(text) => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const at = node.data.indexOf(text);
    if (at < 0) continue;
    const left = (i) => { const r = document.createRange(); r.setStart(node, at + i);
      r.setEnd(node, at + i + 1); return r.getBoundingClientRect().left; };
    return left(0) < left(text.length - 1);
  }
  return null;
}"""


class Watched(Opened):
    """A page, and everything that it did and should not do."""

    def __init__(self, browser, address, *homes):
        self.did, self.homes = [], homes  # what the addresses that it may ask begin with
        super().__init__(browser, address)

    def listen(self):
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._asked)

    def _dialog(self, dialog):
        self.did.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request):
        address = request.url
        if not address.startswith(("data:", "blob:")) and not self.allowed(address):
            self.did.append(f"request: {address}")

    def allowed(self, address):
        return address.split("#")[0] == self.address or address.startswith(self.homes)

    def faults(self):
        """Everything found, one line each."""
        try:
            found = [f"program: {what}" for what in self.page.evaluate(PROGRAMS)]
            self.page.wait_for_timeout(100)  # what is loaded late, and a refresh of the page
            found += self.did + self.complaints()
        except Error:  # the page that was asked is no longer there
            return [*self.did, "it led away"]
        if (wide := self.page.evaluate(WIDE)) > 0:
            found.append(f"{wide} pixels too wide")
        return found


def looked_at(browser, path):
    """(faults, text, title) of a file."""
    watched = Watched(browser, path.as_uri())
    try:
        return watched.faults(), watched.page.inner_text("body"), watched.page.title()
    finally:
        watched.close()


def faults_of(browser, folder):
    """{page: its faults} of the pages in a folder that have some."""
    found = {p.name: looked_at(browser, p)[0] for p in sorted(folder.rglob("*.html"))}
    assert found
    return {name: faults for name, faults in found.items() if faults}


# --- what is shown ---


def lesson(name):
    """A notebook in which everything is called ``name``."""
    state = {"text": {"model_name": "HTMLModel", "state": {"value": EVIL_HTML}}}
    widget = {pages.WIDGET_VIEW: {"model_id": "text"}, "text/plain": name}
    outputs = [
        new_output("stream", text=f"log: {name}\n"),
        new_output("execute_result", {"text/plain": name}),
        new_output("display_data", {MIME: {"name": name, "value": 1}}),
        new_output("display_data", {"text/latex": f"${name}$"}),
        new_output("display_data", {"text/markdown": EVIL_HTML}),
        new_output("display_data", {"text/html": EVIL_HTML, "application/javascript": "alert(8)"}),
        new_output("display_data", {"text/html": field.html(table(name))}),
        new_output("display_data", {"text/html": findings.card(diagnosis(name))}),
        new_output("display_data", {"image/svg+xml": "<svg onload='alert(9)'></svg>"}),
        new_output("display_data", widget),
        new_output("error", ename=name, evalue=name, traceback=[name]),
    ]
    links = "\n\n".join(f"[{n}]({link})" for n, link in enumerate(LINKS))
    cells = [
        new_markdown_cell(f"# {name}\n\n**The question.** {name}\n\n{links}\n\n{EVIL_HTML}"),
        new_code_cell(f"# {name}", metadata={"tags": ["headline", name], "alt": name}),
    ]
    cells[1].outputs = outputs
    return new_notebook(cells=cells, metadata={"widgets": {WIDGET_STATE: {"state": state}}})


def table(name):
    row = {"package": name, "version": name, "layer": name, "date": name, "torch": name}
    for question in field.QUESTIONS:
        row |= {question: f"warning: {name}", f"{question}_source": name}
    return pd.DataFrame([row])


def diagnosis(name):
    evidence = (Evidence(name, name, name, name),)
    answers = [
        Finding("healthy", severity, evidence, name, name, name)
        for severity in ("critical", "clear", "unknown", "not applicable")
    ]
    curve = findings.Curve([(0, 0.5), (1, 0.7)])
    return replace(Diagnosis.of(name, answers, {name: curve}), understood=(name,))


def run(build, name=ALL):
    """The report and the site of two notebooks in which everything has this name."""
    (build / "notebooks").mkdir(parents=True)
    results = []
    for stem in (FILE, "javascript:alert(1);x"):
        path = build / "notebooks" / f"{stem}.ipynb"
        nbformat.write(lesson(name), path)
        records = {"before/val_utilization": 0.2, "after/val_utilization": 0.9}
        records |= {f"before/{name}": 1, f"after/{name}": 2}
        gates = (Verdict(name, 3, Gate(max=2), False, name),)
        error = f"{name}\n{name}" if name == LONG else None
        results.append(
            Result(stem, name, {name: name}, records, Cost(1.0, 2.0, 3.0), path, error, gates)
        )
    report.write(results, build / "report", profile=name)
    if name != LONG:
        site.write(build, build / "site")
    return build


# --- nothing happens, and everything is read ---


@pytest.mark.parametrize("name", [ALL, LONG], ids=["programs", "long"])
def test_report_and_site(browser, tmp_path, name):
    build = run(tmp_path / "build", name)
    assert faults_of(browser, build) == {}
    _, text, _ = looked_at(browser, build / "report" / "index.html")
    shown = name.replace("&lt;b&gt;", "<b>")  # a title is Markdown
    assert name in text and (shown in text or name == LONG)
    for page in sorted((build / "report" / "notebooks").iterdir()):
        _, text, title = looked_at(browser, page)
        assert text.count(name) >= 10 and "kept" in text
        assert title.split() == shown.split()


def test_every_link_of_a_site_leads_to_its_page(browser, tmp_path):
    run(tmp_path / "build")
    front = tmp_path / "build" / "site" / "index.html"
    opened = Watched(browser, front.as_uri(), "file:")
    for n in range(2):
        opened.page.locator(".lessons a").nth(n).click()
        opened.page.locator("nav a.back").wait_for(timeout=CHANGE)
        opened.page.locator("nav.bottom a").click()
        opened.page.locator("nav a.back").wait_for(timeout=CHANGE)
        opened.page.go_back()
        opened.page.go_back()
    assert opened.faults() == []
    opened.close()


def test_right_to_left_marks_end_with_their_name(browser, tmp_path):
    page = tmp_path / "card.html"
    page.write_text(findings.page(diagnosis("a\u202eb")))
    opened = Watched(browser, page.as_uri())
    assert opened.page.evaluate(FORWARD, "critical") and opened.faults() == []
    page.write_text(page.read_text().replace("<bdi>", "").replace("</bdi>", ""))
    opened.page.reload()
    assert opened.page.evaluate(FORWARD, "critical") is False
    opened.close()


@pytest.mark.parametrize("name", [ALL, LONG], ids=["programs", "long"])
def test_card_and_field_table_by_themselves(browser, tmp_path, name):
    """Also without the policy of our pages: a notebook shows them in a page of its own."""
    (tmp_path / "card.html").write_text(f"<!doctype html>{findings.card(diagnosis(name))}")
    (tmp_path / "field.html").write_text(f"<!doctype html>{field.html(table(name))}")
    (tmp_path / "page.html").write_text(findings.page(diagnosis(name)))
    assert faults_of(browser, tmp_path) == {}
    for page in tmp_path.iterdir():
        assert looked_at(browser, page)[1].count(name) >= 4, page.name


def test_a_log_whose_columns_and_layers_are_called_so(browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = healthy().rename(columns={"used_codes": ALL}).drop(columns="utilization")
    rows["layer"] = ALL
    rows.to_json(FILE, orient="records", lines=True)
    status = cli.main(
        [
            "diagnose",
            FILE,
            "--codebook_size",
            "512",
            "--map",
            f"used_codes={ALL}",
            "--html",
            "a.html",
        ]
    )
    assert status == 0
    faults, text, title = looked_at(browser, tmp_path / "a.html")
    assert faults == [] and ALL in text and title.endswith("healthy")


def test_a_model_whose_layers_are_called_so(browser, tmp_path):
    model = nn.Sequential()
    for n in range(2):
        model.add_module(f"{n}{ALL}", vqlib.NormEMAQuantizer(16, 4, seed=n))

    def forward(z):
        for layer in model:
            z = layer(z).quantized
        return z

    with vqlib.watch(model) as watched:
        for _ in range(20):
            forward(torch.randn(64, 4))
    (tmp_path / "a.html").write_text(f"<!doctype html>{vqlib.diagnose(watched)._repr_html_()}")
    faults, text, _ = looked_at(browser, tmp_path / "a.html")
    assert faults == [] and f"1{ALL}" in text


@pytest.fixture(scope="module")
def hostile_runs(tmp_path_factory):
    """A folder of runs, called what no store would call them."""
    folder = tmp_path_factory.mktemp("runs")
    quiet(tiny(steps=2), folder / "good")
    for name in (*NAMES, "x" * 250):
        other = folder / name.replace("/", "\u2215")
        shutil.copytree(folder / "good", other)
        settings = json.loads((other / "config.json").read_text()) | {"dataset_dir": name}
        (other / "config.json").write_text(json.dumps(settings | {"dataset": None}))
    (folder / FILE / "summary.json").write_text("{" + ALL)
    return folder


def test_the_page_of_the_playground_names_runs_and_errors(
    browser, hostile_runs, tmp_path, pictures
):
    with servers.page(tmp_path / "home", VQLIB_RUNS=str(hostile_runs)) as server:
        opened = Watched(browser, server.address("/"), server.url, "ws://127.0.0.1")
        page = opened.page
        page.locator(".vq-runs table").wait_for(timeout=OPEN)
        text = page.inner_text("body")
        assert all(name.replace("/", "\u2215") in text for name in NAMES if "\u202e" not in name)
        page.locator(".vq-name input").fill(ALL)
        page.locator(".vq-name input").press("Enter")
        page.locator(".vq-message .vq-error").wait_for(timeout=CHANGE)
        said = page.inner_text(".vq-message .vq-error")
        assert "name must begin with" in said and NAMES[0] in said
        for show in page.locator(".vq-runs input[type=checkbox]").all()[:4]:
            show.click()
        page.screenshot(path=pictures / "hostile.png", full_page=True)
        assert opened.did + opened.errors == []
        opened.close()


# --- each wall, taken down ---


def unescaped(environment):
    environment.autoescape = False
    return environment


def test_without_the_escaping_of_the_report(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "environment", lambda make=report.environment: unescaped(make()))
    found = faults_of(browser, run(tmp_path / "build") / "report")
    assert any("program: onerror" in fault for fault in found["index.html"])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("card.html.j2", lambda: findings.card(diagnosis(ALL))),
        ("page.html.j2", lambda: findings.page(diagnosis(ALL))),
        ("field.html.j2", lambda: field.html(table(ALL))),
    ],
)
def test_without_the_escaping_of_a_card(browser, tmp_path, monkeypatch, name, make):
    loader = jinja2.PackageLoader("vqlib.diagnosis", "templates")
    bare = unescaped(jinja2.Environment(loader=loader, trim_blocks=True))
    monkeypatch.setattr(
        findings if name != "field.html.j2" else field,
        "template",
        lambda asked: bare.get_template(asked, globals={"palette": findings.palette}),
    )
    (tmp_path / "a.html").write_text("<!doctype html>" + make())
    found = looked_at(browser, tmp_path / "a.html")[0]
    dialogs = [fault for fault in found if fault.startswith("dialog")]
    assert any("program: " in fault for fault in found)
    assert bool(dialogs) == (name != "page.html.j2")  # it has a policy


@pytest.mark.parametrize("walls", ["no content is disarmed", "and there is no policy"])
def test_without_the_walls_around_a_notebooks_own_content(browser, tmp_path, monkeypatch, walls):
    monkeypatch.setattr(pages, "disarm", lambda soup: None)
    build = run(tmp_path / "build")
    if walls == "and there is no policy":
        for page in build.rglob("*.html"):
            text = page.read_text()
            page.write_text(text.replace('http-equiv="Content-Security-Policy"', 'name="none"'))
    found = [fault for faults in faults_of(browser, build).values() for fault in faults]
    assert any(fault.startswith(("program: ", "it led away")) for fault in found)
    assert any("dialog" in fault for fault in found) == (walls == "and there is no policy")
