"""An executed notebook as one HTML page body that needs no network and no kernel.

nbconvert does the rendering. Ours is what it leaves to a CDN: formulas become MathML, which
browsers draw themselves; a widget becomes a still picture of what it last showed; a record
becomes a quiet line. What would be executed, fetched or sent is dropped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping

import latex2mathml.converter
import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from vqlib.suite import records, tables
from vqlib.suite.executing import WIDGET_STATE

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PAPERMILL_BANNER = "papermill-error-cell-tag"
DEMO = "demo"
PANEL = "vq-panel"  # the class of `playground.controls.Panel`
STILL = "<p class='still'>Interactive: open the notebook in Jupyter to move it.</p>"
ACTIVE = "script, iframe, frame, object, embed, applet, base, meta, link, form, template"
FETCHED = ("src", "srcset", "poster", "background", "ping")  # attributes with an address
SAFE_LINKS = ("http", "https", "mailto")


def title(notebook: NotebookNode, default: str) -> str:
    """The first heading of the notebook, as plain text."""
    for cell in notebook.cells:
        heading = re.search(r"^#+ +(.+?)\s*#*$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return plain(heading.group(1))
    return default


def plain(markdown: str) -> str:
    """A line of Markdown without its emphasis and code marks, as a reader sees it."""
    return html.unescape(re.sub(r"[*_`]{1,2}(\S.*?)[*_`]{1,2}", r"\1", markdown))


def headline(notebook: NotebookNode) -> tuple[str, str] | None:
    """The picture of the cell tagged ``headline``: base64 PNG and its alternative text."""
    for cell in notebook.cells:
        if "headline" in cell.metadata.get("tags", ()):
            for output in cell.get("outputs", ()):
                picture = output.get("data", {}).get("image/png")
                if picture:
                    return picture.replace("\n", ""), _alt(cell, output, title(notebook, ""))
    return None


def failed_cell(notebook: NotebookNode) -> str | None:
    """The HTML id of the first cell that ended in an error."""
    for cell in notebook.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", ())):
            return _anchor(cell)
    return None


def recording_cells(notebook: NotebookNode) -> dict[str, str]:
    """{record: HTML id of the first cell that made it}."""
    found: dict[str, str] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            record = output.get("data", {}).get(records.MIME)
            if isinstance(record, Mapping):
                found.setdefault(str(record.get("name")), _anchor(cell))
    return found


def _anchor(cell: Mapping) -> str:
    """As nbconvert's template gives it to a cell."""
    return f"cell-id={cell.get('id', '')}"


def body(notebook: NotebookNode, folder: str, siblings: Iterable[str] = ()) -> str:
    """The notebook as HTML, without head and style sheet.

    `folder` holds the pictures that its text refers to; links to one of the notebooks named
    in `siblings` lead to its page.
    """
    exporter = _Exporter(template_name="basic", embed_images=True, exclude_anchor_links=True)
    resources = {"metadata": {"path": folder}}
    text, _ = exporter.from_notebook_node(_still(notebook), resources)
    soup = BeautifulSoup(text, "html.parser")
    disarm(soup)
    for link in soup.select("a[href]"):
        stem = re.fullmatch(r"(?:\./)?([^/]+)\.ipynb(#.*)?", link["href"])
        if stem and stem.group(1) in set(siblings):
            link["href"] = f"{stem.group(1)}.html{stem.group(2) or ''}"
    for heading in soup.select("h2, h3"):
        heading["id"] = anchor(heading.get_text())
    return str(soup)


def disarm(soup: BeautifulSoup) -> None:
    """Take out what a browser would execute, fetch, send or be led away by.

    The pages' content security policy is a second wall behind this one.
    """
    for output in soup.select(".output_area:has(script)"):
        output.append(BeautifulSoup(STILL, "html.parser"))
    for element in soup.select(ACTIVE):
        element.decompose()
    for element in soup.find_all(True):
        for name in list(element.attrs):
            if not _harmless(element.name, name.lower(), str(element[name])):
                del element[name]
    for image in soup.select("img:not([src])"):
        image.replace_with(image.get("alt", ""))


def _harmless(tag: str, name: str, value: str) -> bool:
    """Whether an attribute neither executes nor fetches anything."""
    value = "".join(c for c in value if c > " ").lower()  # as a browser reads an address
    scheme = re.match(r"([a-z][a-z0-9+.-]*):", value)
    if name in ("href", "xlink:href"):
        if tag in ("a", "area"):
            return scheme is None or scheme.group(1) in SAFE_LINKS
        return value.startswith(("#", "data:"))
    return not name.startswith("on") and (name not in FETCHED or value.startswith("data:"))


def anchor(heading: str) -> str:
    """What a link to a heading ends in, in JupyterLab and on a page."""
    return heading.strip().replace(" ", "-")


def code_css() -> str:
    """Colours of the code, for a light and for a dark page."""
    light = HtmlFormatter(style="tango", nobackground=True).get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as MathML; as it was written if the converter does not know it."""
    try:
        return latex2mathml.converter.convert(latex, display=display)
    except Exception:  # any failure means the same: show the source
        return f"<code>{html.escape(latex)}</code>"


class _Renderer(IPythonRenderer):
    def block_html(self, html: str) -> str:
        # to embed pictures nbconvert parses a block by itself, and so closes an open <details>
        if "<img" in html:
            return super().block_html(html)
        return super(IPythonRenderer, self).block_html(html)

    def block_math(self, body: str) -> str:
        return f"<p class='formula'>{mathml(body, 'block')}</p>"

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")

    def inline_math(self, body: str) -> str:
        return mathml(body)


class _Exporter(HTMLExporter):
    def markdown2html(self, context, source):
        renderer = _Renderer(
            escape=False,
            embed_images=True,
            exclude_anchor_links=True,
            attachments=context.get("cell", {}).get("attachments", {}),
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
        )
        return MarkdownWithMath(renderer=renderer).render(source)

    markdown2html.contextfilter = True
    markdown2html.jinja_pass_arg = HTMLExporter.markdown2html.jinja_pass_arg


def _still(notebook: NotebookNode) -> NotebookNode:
    """A copy in which every output can be drawn without a script."""
    notebook = nbformat.from_dict(notebook)
    widgets = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    heading = title(notebook, "this notebook")
    notebook.cells = [
        cell for cell in notebook.cells if PAPERMILL_BANNER not in cell.metadata.get("tags", ())
    ]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # of a demonstration, the next cell holds the same as a figure
            known = {} if DEMO in cell.metadata.get("tags", ()) else widgets
            cell.outputs = [
                still for output in cell.outputs for still in _still_output(output, known)
            ]
            for output in cell.outputs:
                if "data" in output:
                    alt = {"alt": _alt(cell, output, heading)}
                    output.metadata = {**output.get("metadata", {})}
                    for kind in ("image/png", "image/jpeg"):
                        given = output.metadata.get(kind, {})
                        output.metadata[kind] = {**given, **alt}
    return notebook


def _alt(cell: Mapping, output: Mapping, heading: str) -> str:
    """A figure's alternative text: the author's, or what can be said without seeing it."""
    given = output.get("metadata", {}).get("image/png", {}).get("alt")
    return given or cell.metadata.get("alt") or f"Figure from “{heading}”"


def _still_output(output: NotebookNode, widgets: Mapping) -> Iterator[NotebookNode]:
    data = output.get("data", {})
    if records.MIME in data:
        yield _html(_record_line(data[records.MIME]))
    elif WIDGET_VIEW in data:
        model = data[WIDGET_VIEW].get("model_id", "")
        if not _is_progress(model, widgets):
            yield from _shown(model, widgets, set())
            yield _html(STILL)
    elif "text/latex" in data and "text/html" not in data and "image/png" not in data:
        formula = data["text/latex"].strip().strip("$").removeprefix("\\displaystyle")
        yield _html(f"<p class='formula'>{mathml(formula, 'block')}</p>")
    elif set(data) != {"application/javascript"} or not data:
        yield output


def _record_line(payload: Mapping) -> str:
    name = str(payload.get("name"))
    shown = tables.value_text(name, payload.get("value"))
    return f"<p class='record'>{html.escape(name)} <b>{html.escape(shown)}</b></p>"


def _shown(model: str, widgets: Mapping, seen: set[str]) -> Iterator[NotebookNode]:
    """What a widget and its children last showed: captured outputs, HTML, pictures."""
    if model in seen or model not in widgets:
        return
    seen.add(model)
    widget, state = widgets[model], widgets[model].get("state", {})
    if PANEL in state.get("_dom_classes", ()):
        return  # sliders that cannot be moved, and their units
    if widget.get("model_name") == "OutputModel":
        for output in map(nbformat.from_dict, state.get("outputs", ())):
            yield from _still_output(output, widgets)
    elif widget.get("model_name") in ("HTMLModel", "HTMLMathModel"):
        yield _html(state.get("value", ""))
    elif widget.get("model_name") == "ImageModel":
        for buffer in widget.get("buffers", ()):
            kind = html.escape(state.get("format") or "png")
            source = f"data:image/{kind};base64,{buffer.get('data', '')}"
            yield _html(
                f"<div class='output_png'><img alt='Interactive figure' src='{source}'></div>"
            )
    for child in state.get("children", ()):
        yield from _shown(str(child).removeprefix("IPY_MODEL_"), widgets, seen)


def _is_progress(model: str, widgets: Mapping) -> bool:
    """Whether it is a bar of tqdm, which has told all by the end."""
    children = widgets.get(model, {}).get("state", {}).get("children", ())
    names = (str(child).removeprefix("IPY_MODEL_") for child in children)
    return any(widgets.get(n, {}).get("model_name") == "FloatProgressModel" for n in names)


def _html(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/html": text})
