"""A lesson's own parts on its page: what is folded, and demonstrations."""

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vqlib.suite import pages
from vqlib.suite.executing import WIDGET_STATE

FOLDED = """<details><summary>Hint</summary>

folded *text*

```python
x = 1
```

</details>

open text"""


def page_of(*cells, **widgets):
    state = {
        name: {"model_name": "HTMLModel", "state": {"value": v}} for name, v in widgets.items()
    }
    metadata = {"widgets": {WIDGET_STATE: {"state": state}}}
    return BeautifulSoup(
        pages.body(new_notebook(cells=cells, metadata=metadata), "."), "html.parser"
    )


def sliders(*tags):
    view = {pages.WIDGET_VIEW: {"model_id": "sliders"}, "text/plain": "HBox(children=...)"}
    return new_code_cell(
        "demo", metadata={"tags": list(tags)}, outputs=[new_output("display_data", view)]
    )


def test_what_is_folded_stays_folded():
    page = page_of(new_markdown_cell(FOLDED))
    (folded,) = page.select("details")
    assert not folded.has_attr("open") and folded.summary.text == "Hint"
    assert folded.em.text == "text" and "x = 1" in folded.select_one("pre").text
    assert "open text" in page.text and "open text" not in folded.text


@pytest.mark.parametrize(("tags", "shown"), [([], True), (["demo"], False)])
def test_a_demonstration_leaves_its_picture_to_the_next_cell(tags, shown):
    page = page_of(sliders(*tags), sliders="<b>moving picture</b>")
    assert len(page.find_all("p", class_="still")) == 1
    assert ("moving picture" in page.text) is shown


def test_a_progress_bar_is_left_out():
    view = {pages.WIDGET_VIEW: {"model_id": "bar"}, "text/plain": "  0%|"}
    cell = new_code_cell("train", outputs=[new_output("display_data", view)])
    state = {
        "bar": {"model_name": "HBoxModel", "state": {"children": ["IPY_MODEL_a", "IPY_MODEL_b"]}},
        "a": {"model_name": "HTMLModel", "state": {"value": "100%"}},
        "b": {"model_name": "FloatProgressModel", "state": {}},
    }
    metadata = {"widgets": {WIDGET_STATE: {"state": state}}}
    body = pages.body(new_notebook(cells=[cell], metadata=metadata), ".")
    assert "train" in body and "100%" not in body and "Interactive" not in body
