"""The HTML report: what stands on its pages, that nothing is fetched, that nothing is injected."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vqlib.suite import Result, pages, report
from vqlib.suite.costs import Cost
from vqlib.suite.executing import WIDGET_STATE
from vqlib.suite.gates import Gate, Verdict
from vqlib.suite.records import MIME
from vqlib.training import places

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
EVIL = "<script>alert(1)</script>"
LESSON = r"""
# Collapse, *seen*

$K$ codes, and $\unknowncommand{$ and

$$\frac{N}{K}$$

[next](02_b.ipynb), [other](elsewhere.ipynb), [paper](https://example.org)
"""


def shown(data, **metadata):
    return new_output("display_data", data, metadata=metadata)


def widget(model, **state):
    return {"model_name": model, "state": state}


def lesson():
    """A notebook with one of everything."""
    state = {
        "box": widget(
            "VBoxModel",
            children=["IPY_MODEL_out", "IPY_MODEL_text", "IPY_MODEL_box", "IPY_MODEL_sliders"],
        ),
        "sliders": widget("VBoxModel", _dom_classes=["vq-panel"], children=["IPY_MODEL_unit"]),
        "unit": widget("HTMLModel", value="a slider's unit"),
        "out": widget(
            "OutputModel",
            outputs=[
                {
                    "output_type": "display_data",
                    "data": {"image/png": PNG, "text/plain": "fig"},
                    "metadata": {},
                }
            ],
        ),
        "text": widget("HTMLModel", value="<b>17 codes</b>"),
    }
    cells = [
        new_markdown_cell(LESSON),
        new_markdown_cell("An Exception", metadata={"tags": ["papermill-error-cell-tag"]}),
        new_code_cell("a = 1", outputs=[shown({"image/png": PNG})]),
        new_code_cell(
            "plot()",
            metadata={"tags": ["headline"], "alt": "It falls & recovers"},
            outputs=[shown({"text/plain": "x"}), shown({"image/png": PNG})],
        ),
        new_code_cell(
            "r",
            outputs=[shown({MIME: {"name": f"x/{EVIL}", "value": 0.5}, "text/plain": "record"})],
        ),
        new_code_cell(
            "w",
            outputs=[
                shown(
                    {
                        "application/vnd.jupyter.widget-view+json": {"model_id": "box"},
                        "text/plain": "VBox(children=...)",
                    }
                )
            ],
        ),
        new_code_cell(
            "fetched",
            outputs=[
                shown(
                    {
                        "text/html": "<script src='https://cdn.example/x.js'></script><link href='https://cdn.example/x.css'>"
                        "<img src='https://cdn.example/x.png'><iframe src='http://cdn.example'></iframe>kept"
                    }
                ),
                shown({"application/javascript": "fetch('https://cdn.example')"}),
            ],
        ),
        new_code_cell("f", outputs=[shown({"text/latex": "$\\sum_k p_k$", "text/plain": "x"})]),
    ]
    return new_notebook(
        cells=cells,
        metadata={"widgets": {WIDGET_STATE: {"state": state}}, "language_info": {"name": "python"}},
    )


def failing():
    error = new_output("error", ename="ZeroDivisionError", evalue="x", traceback=["\x1b[31mboom"])
    return new_notebook(
        cells=[new_markdown_cell("# Broken"), new_code_cell("1/0", outputs=[error])]
    )


def result(folder: Path, name: str, notebook, **fields) -> Result:
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    values = {"parameters": {}, "records": {}, "cost": Cost(83.2, 312.4, 0.25)} | fields
    return Result(name, "full", executed=path, **values)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    gates = (
        Verdict("after/val_utilization", 0.97, Gate(min=0.65), True, "The codebook recovers"),
        Verdict(f"x/{EVIL}", 3, Gate(max=2), False, f"A claim {EVIL}"),
        Verdict("budget/memory_mb", 312.4, Gate(max=300), False),
    )
    records = {
        "before/val_utilization": 0.14,
        "after/val_utilization": 0.97,
        f"before/{EVIL}": 1,
        f"after/{EVIL}": 2,
    }
    results = [
        result(folder, "01_a", lesson(), records=records, gates=gates),
        result(folder, "02_b", failing(), error=f"ZeroDivisionError: {EVIL}\nat line 1"),
    ]
    return report.write(results, folder / "report", profile="full")


@pytest.fixture(scope="module")
def front(made):
    return BeautifulSoup((made / "index.html").read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="module")
def page(made):
    text = (made / "notebooks" / "01_a.html").read_text(encoding="utf-8")
    return BeautifulSoup(text, "html.parser")


def every_page(made):
    found = {p.name: p.read_text(encoding="utf-8") for p in made.rglob("*.html")}
    assert sorted(found) == ["01_a.html", "02_b.html", "index.html"]
    return found


def test_no_page_fetches_anything(made):
    for text in every_page(made).values():
        soup = BeautifulSoup(text, "html.parser")
        policy = soup.select_one("meta[http-equiv='Content-Security-Policy']")["content"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
        assert not soup.select("link, script, iframe, object, embed, base")
        assert all(image["src"].startswith("data:") for image in soup.select("img"))
        words = re.sub(r"base64,[\w+/=]+", "", text)  # a picture holds any three letters
        assert not re.search(r"@import|url\(|cdn", words)


def test_what_a_notebook_would_fetch_is_dropped_and_the_rest_kept(page):
    assert "kept" in page.text and "cdn.example" not in str(page)


def test_names_are_escaped_everywhere(made, front, page):
    for text in every_page(made).values():
        assert EVIL not in text
    assert "<script>alert(1)<" in front.select_one("table.compare").text
    assert EVIL in front.select_one(".failure pre").text
    assert EVIL in page.select_one(".record").text


def test_the_front_page_begins_with_what_failed(front):
    order = [element.name for element in front.select("main > *")]
    assert order[:3] == ["p", "section", "figure"]
    banner = front.select_one(".banner")
    assert "bad" in banner["class"] and "1 of 2 notebooks failed." in banner.text
    assert "2 of 3 gates fail." in banner.text
    assert front.select_one(".failure a")["href"] == "notebooks/02_b.html"


def test_the_headline_figure_has_its_alternative_text(front):
    image = front.select_one("figure img")
    assert image["src"] == f"data:image/png;base64,{PNG}" and image["alt"] == "It falls & recovers"
    assert front.select_one("figcaption a")["href"] == "notebooks/01_a.html"


def test_the_before_after_table_reads_in_words(front):
    rows = [[c.text.strip() for c in row.select("th, td")] for row in front.select(".compare tr")]
    assert rows[0] == ["Measure", "Before", "After", "Change"]
    assert rows[1] == ["Validation utilization", "14.0 %", "97.0 %", "+83 points"]
    assert "14.0 %" in front.select_one(".lead").text


def test_gates_say_pass_or_fail_in_words_failures_first(front):
    table = front.find(id="gates").find_parent("section").table
    cells = [row.td.text.split() for row in table.select("tbody tr")]
    assert cells == [["✗", "FAIL"], ["✗", "FAIL"], ["✓", "pass"]]


def recorded_in(made, name):
    """The id of the cell that makes the record of `lesson`."""
    notebook = nbformat.read(made.parent / f"{name}.ipynb", as_version=4)
    return next(cell.id for cell in notebook.cells if cell.source == "r")


def test_a_gate_says_its_claim_and_leads_to_the_cell_that_recorded_it(made, front, page):
    rows = front.find(id="gates").find_parent("section").select("tbody th")
    assert rows[0].select_one(".stem").text == f"A claim {EVIL}"
    link = rows[0].a["href"]
    assert link == f"notebooks/01_a.html#cell-id={recorded_in(made, '01_a')}"
    assert "x/" in page.find(id=link.partition("#")[2]).select_one(".record").text
    assert not rows[1].select(".stem, a") and "budget/memory_mb" in rows[1].text
    assert rows[2].select_one(".stem").text == "The codebook recovers"


def test_timings_and_provenance(front):
    row = front.find(id="notebooks").find_parent("section").select_one("tbody tr")
    assert [cell.text for cell in row.select("td.number")][1:] == [
        "1 min 23 s",
        "312 MB",
        "0.25 MB",
    ]
    labels = {term.text: term.find_next("dd").text for term in front.select("dt")}
    assert labels["Profile"] == "full" and labels["Python"] and int(labels["Cores"]) >= 1


def test_the_pages_are_accessible(made):
    for name, text in every_page(made).items():
        soup = BeautifulSoup(text, "html.parser")
        assert soup.html["lang"] == "en" and soup.title.text and len(soup.select("h1")) == 1
        assert soup.select_one("main#main") and soup.select_one("a.skip")["href"] == "#main"
        assert all(image.get("alt") for image in soup.select("img")), name
        assert all(cell.get("scope") for cell in soup.select(".scroll th"))
        assert "prefers-color-scheme: dark" in text and "width=device-width" in text
        ids = [element["id"] for element in soup.select("[id]")]
        assert len(ids) == len(set(ids))


def test_colours_have_contrast():
    css = (report.TEMPLATES / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for ink in ("ink", "quiet", "accent"):
            for ground in ("paper", "card", "code"):
                assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
        assert contrast(colour["card"], colour["bad"]) >= 4.5  # the badge in a red row
        for kind in ("good", "bad"):
            assert contrast(colour[kind], colour[f"{kind}-bg"]) >= 4.5, kind
        for bar in ("before", "after"):
            assert contrast(colour[bar], colour["card"]) >= 3, bar


def contrast(one: str, two: str) -> float:
    """The ratio of WCAG 2, from 1 to 21."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_figures_stand_on_white_and_are_not_inverted():
    css = (report.TEMPLATES / "style.css").read_text(encoding="utf-8")
    assert "filter:" not in css.replace("backdrop-filter:", "")
    assert re.search(r"\.headline img \{[^}]*background: #fff", css)
    assert re.search(r"output_png.*img \{[^}]*background: #fff", css)


def test_a_page_leads_back_and_to_its_neighbour(page):
    assert page.select_one("nav a.back")["href"] == "../index.html"
    assert page.select_one("a[rel=next]")["href"] == "02_b.html"
    links = {a.text: a["href"] for a in page.select("main a")}
    assert links["next"] == "02_b.html" and links["other"] == "elsewhere.ipynb"
    assert page.title.text == "Collapse, seen"


def test_formulas_are_mathml_and_an_unknown_one_stays_readable(page):
    assert page.select("p math") and page.select("p.formula mfrac")
    assert page.select_one(".output_html math munder, .output_html math msub")
    assert "$$" not in page.select_one("main").text


def test_a_widget_becomes_a_still_picture(page):
    note = page.find("p", class_="still")
    before = [str(area) for area in note.find_all_previous("div", class_="output_area")[:3]]
    assert any(PNG in area for area in before) and any("17 codes" in area for area in before)
    assert "VBox(children" not in page.text and "Exception" not in page.text
    assert "a slider's unit" not in page.text


def test_the_page_of_a_failed_notebook_leads_to_the_cell(made):
    text = (made / "notebooks" / "02_b.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    target = page.select_one(".banner.bad a")["href"]
    assert "boom" in page.find(id=target.removeprefix("#")).text and "\x1b" not in text


def test_numbers_for_programs(made):
    content = json.loads((made / "results.json").read_text(encoding="utf-8"))
    assert content["passed"] is False and not report.passed(made)
    first = content["notebooks"][0]
    assert first["records"]["after/val_utilization"] == 0.97
    assert first["gates"][0] == {
        "record": "after/val_utilization",
        "value": 0.97,
        "gate": "≥ 0.65",
        "kind": "effect",
        "passed": True,
        "claim": "The codebook recovers",
        "cell": "",
    }
    assert first["gates"][1]["cell"] == f"cell-id={recorded_in(made, '01_a')}"
    assert {"seconds": 83.2, "memory_mb": 312.4, "output_mb": 0.25}.items() <= first.items()


def test_a_report_without_failures_pairs_or_figure(tmp_path):
    plain = new_notebook(cells=[new_code_cell("1")])
    folder = report.write([result(tmp_path, "01_a", plain)], tmp_path / "r", profile="quick")
    front = BeautifulSoup((folder / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert "good" in front.select_one(".banner")["class"] and not front.select(
        ".headline, .failure"
    )
    assert report.passed(folder)


def test_a_picture_in_the_text_is_embedded(tmp_path):
    import base64

    (tmp_path / "x.png").write_bytes(base64.b64decode(PNG))
    body = pages.body(new_notebook(cells=[new_markdown_cell("![alt](x.png)")]), str(tmp_path))
    assert f"data:image/png;base64,{PNG}" in body


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (7.26, "7.3 s"), (59.96, "1 min 00 s"), (80, "1 min 20 s")],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "PARENT", tmp_path)
    assert "Commit" not in report.provenance("full")
