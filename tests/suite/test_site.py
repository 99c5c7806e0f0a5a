"""The site: what stands on its pages, that its links hold, and what it refuses."""

import json
import re
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.suite.test_report import PNG, result
from vqlib.suite import report, site
from vqlib.suite.gates import Gate, Verdict

QUESTION = '**The question.** Is `K` *"large"* & enough?'


def lesson(title, *links):
    picture = new_output("display_data", {"image/png": PNG})
    cells = [
        new_markdown_cell(f"# {title}\n\n{QUESTION}\n\n" + "\n\n".join(links)),
        new_markdown_cell("## Try it: what is seen?"),
        new_code_cell("x", metadata={"tags": ["headline"], "alt": "A falling curve."}),
    ]
    cells[-1].outputs = [picture]
    return new_notebook(cells=cells)


def run(build, error=None, coming=()):
    """What `vqlib run` leaves, of two notebooks."""
    lessons = {
        "01_a": lesson(
            "A", "[next](02_b.ipynb#Try-it:-what-is-seen?)", "[here](#Try-it:-what-is-seen?)"
        ),
        "02_b": lesson("B", "[back](01_a.ipynb)"),
    }
    (build / "notebooks").mkdir(parents=True)
    records = {"before/val_utilization": 0.2, "after/val_utilization": 0.9}
    gates = (Verdict("after/val_utilization", 0.9, Gate(min=0.5), True),)
    results = [
        result(build / "notebooks", name, notebook, records=records, gates=gates, error=error)
        for name, notebook in lessons.items()
    ]
    report.write(results, build / "report", profile="quick", coming=coming)
    return build


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.write(run(folder / "build"), folder / "site")
    return folder / "site"


def pages(folder):
    return {
        str(path.relative_to(folder)): BeautifulSoup(
            path.read_text(encoding="utf-8"), "html.parser"
        )
        for path in sorted(folder.rglob("*.html"))
    }


def test_its_pages(made):
    names = ["index.html", "notebooks/01_a.html", "notebooks/02_b.html", "report.html"]
    assert sorted(pages(made)) == names and (made / "results.json").is_file()


def test_every_link_leads_to_a_page_and_a_place_in_it(made):
    found = pages(made)
    followed = 0
    for name, page in found.items():
        for link in page.select("a[href]"):
            target, _, place = link["href"].partition("#")
            path = (made / name).parent / target if target else made / name
            assert path.is_file(), (name, link["href"])
            if place:
                other = found[str(path.resolve().relative_to(made.resolve()))]
                assert other.find(id=unquote(place)), (name, link["href"])
                followed += 1
    assert followed >= 4


def test_titles_descriptions_and_the_dark_theme(made):
    found = pages(made)
    del found["report.html"]  # tested as the report
    titles = [page.title.text for page in found.values()]
    assert len(set(titles)) == len(titles) and "A · vqlib" in titles
    for page in found.values():
        described = page.select_one("meta[name=description]")["content"]
        assert 20 < len(described) < 200 and "\n" not in described
        assert page.select_one("meta[property='og:title']")["content"] == page.title.text
        assert page.html["lang"] == "en" and len(page.select("h1")) == 1
        assert "prefers-color-scheme: dark" in str(page.style)
    described = found["notebooks/01_a.html"].select_one("meta[name=description]")["content"]
    assert described == 'Is K "large" & enough?'


def test_no_page_fetches_anything(made):
    for name, page in pages(made).items():
        policy = page.select_one("meta[http-equiv='Content-Security-Policy']")["content"]
        assert policy.startswith("default-src 'none'"), name
        assert not page.select("script, iframe, object, embed, base, link[rel=stylesheet]")
        sources = [*page.select("img[src]"), *page.select("link[href]")]
        assert all(s.get("src", s.get("href")).startswith("data:") for s in sources)
        assert all(image["alt"] for image in page.select("img"))


def test_the_front_page_shows_the_lessons_and_what_was_measured(made):
    front = pages(made)["index.html"]
    lessons = {a["href"]: a.text for a in front.select(".lessons a")}
    assert lessons == {"notebooks/01_a.html": "A", "notebooks/02_b.html": "B"}
    assert front.select_one(".lessons p").text == 'Is K "large" & enough?'
    assert "20.0 %" in front.select_one(".lead").text
    assert front.select_one("figure img")["alt"] == "A falling curve."
    assert re.search(r"2 of 2 gates .* pass", front.footer.text)


def test_a_second_site_takes_the_place_of_the_first(made):
    before = (made / "index.html").read_text(encoding="utf-8")
    (made / "CNAME").write_text("mine")
    site.write(made.parent / "build", made)
    assert (made / "index.html").read_text(encoding="utf-8") == before
    assert (made / "CNAME").read_text() == "mine"


def refused(capsys, *arguments):
    assert site.main([str(a) for a in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_without_a_run_it_says_what_makes_one(tmp_path, capsys):
    assert "vqlib run" in refused(capsys, tmp_path / "build", tmp_path / "site")
    assert "two folders" in refused(capsys, tmp_path)
    assert not (tmp_path / "site").exists()


def test_what_failed_or_is_not_complete_is_not_shown(tmp_path, capsys):
    build = run(tmp_path / "build", error="ZeroDivisionError")
    assert "01_a, 02_b" in refused(capsys, build, tmp_path / "site")
    build = run(tmp_path / "later", coming=["03_c"])
    assert refused(capsys, build, tmp_path / "site").endswith(": 03_c")
    assert not (tmp_path / "site").exists()


def test_a_run_that_is_damaged_is_refused(tmp_path, capsys):
    build = run(tmp_path / "build")
    (build / "notebooks" / "02_b.ipynb").unlink()
    assert "02_b.ipynb" in refused(capsys, build, tmp_path / "site")
    assert not (tmp_path / "site").exists()
    (build / "report" / "results.json").write_text("{")
    assert "results.json" in refused(capsys, build, tmp_path / "site")


@pytest.mark.parametrize("name", ["index.html", "thesis.tex"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys, name):
    build, folder = run(tmp_path / "build"), tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    refused(capsys, build, folder)
    assert [p.name for p in folder.iterdir()] == [name] and (folder / name).read_text() == "mine"
    assert json.loads((build / "report" / "results.json").read_text())["passed"]
