"""The documentation as a site: it builds without a warning, every page can be reached, and what it shows is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import correction_graphs
from correction_graphs import create_cac_graph, create_rain_graph, create_s2a_graph, errors
from correction_graphs.testing import ScriptedChatModel, ToyBackend

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
NEEDED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python")


def is_installed(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as it is published: a warning is an error."""
    if missing := [module for module in NEEDED if not is_installed(module)]:
        pytest.skip(f"{', '.join(missing)} not installed: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Anchors(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, page):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


def test_the_site_has_every_page(site):
    for page in PAGES:
        address = page.relative_to(DOCS).with_suffix("")
        folder = address.parent if address.name == "index" else address
        assert (site / folder / "index.html").is_file(), f"{page.name} was not built"


def test_links_on_the_site_lead_to_a_page_and_a_place_in_it(site):
    pages = {page: Anchors(page) for page in site.glob("**/*.html") if page.name != "404.html"}
    assert len(pages) > len(PAGES)
    dead = []
    for page, anchors in pages.items():
        for link in anchors.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in pages[target].ids):
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_the_pages_of_the_site_ask_nobody_else_for_anything(site):
    """But where a diagram is drawn: what draws it comes over the network, when there is one."""
    for page in site.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=[\"']?https?:", text) == [], page


# What it is made of


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names Python functions."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, name, node: name)
CONFIG = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


def entries(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from entries([below] if isinstance(below, str) else below)


def test_the_navigation_has_every_page_once_and_nothing_else():
    listed = list(entries(CONFIG["nav"]))
    assert len(listed) == len(set(listed))
    assert [entry for entry in listed if not ((DOCS / entry).is_file() or (ROOT / entry).is_file())] == []
    inside = {entry for entry in listed if (DOCS / entry).is_file()}
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} == inside


def prose(path):
    return re.sub(r"^( *)(`{3,}).*?^\1\2`*$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def places(path):
    """The names of a document's headings, as sites and forges make them."""
    for heading in re.findall(r"^#+ +(.*)$", prose(path), re.MULTILINE):
        yield re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def links(path) -> Iterator[tuple[str, str]]:
    for target, place in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", prose(path)):
        if "://" not in target:
            yield target, place


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(DOCS))) for page in PAGES])
def test_links_between_documents_lead_to_a_file_and_a_heading(page):
    for target, place in links(page):
        found = page.parent / target if target else page
        assert found.exists(), f"links to {target}"
        if place and found.suffix == ".md":
            assert place in set(places(found)), f"{target} has no heading #{place}"


GRAPHS = {
    "create_cac_graph": lambda: create_cac_graph(ScriptedChatModel([])),
    "create_s2a_graph": lambda: create_s2a_graph(ScriptedChatModel([])),
    "create_rain_graph": lambda: create_rain_graph(ToyBackend(), judge=lambda text: 1.0),
}


def test_the_graphs_are_drawn_as_they_are():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^`(create_\w+)`\n\n```mermaid\n(.*?)```", text, re.DOTALL | re.MULTILINE))
    drawn = {name: make().get_graph().draw_mermaid(with_styles=False) for name, make in GRAPHS.items()}
    assert {name: graph.strip() for name, graph in shown.items()} == {
        name: graph.strip() for name, graph in drawn.items()
    }


def documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    return set(re.findall(r"^::: correction_graphs\.(\S+)$", text, re.MULTILINE))


def test_every_public_name_is_in_the_reference():
    assert (
        set(correction_graphs.__all__) - {"__version__"} - {name.removeprefix("errors.") for name in documented()}
        == set()
    )


def test_every_error_is_in_the_reference():
    raised = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert raised == {name.removeprefix("errors.") for name in documented() if name.startswith("errors.")}
