"""A hook of MkDocs: what the documentation links to outside docs/ becomes a page of the site.

Links between documents are paths in the repository, so that they work in a clone and on a forge, too. Here each file
that is linked to from a page, and stands outside docs/, is published under its own path: Markdown and images as they
are, anything else as a listing. Nothing is copied into docs/, and nothing has to be kept up to date.
"""

# ruff: noqa: INP001 -- MkDocs loads it by its path

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"(?<=\]\()([^()\s#]+)(?=(?:#[^()\s]*)?\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
_AS_THEY_ARE = {".md", ".png", ".svg"}
_README = "repository.md"
"""MkDocs would make the first page of the README, and the site has one of its own."""


class Repository:
    """Where files are in the repository, and where on the site.

    Args:
        config: Of the site.
    """

    def __init__(self, config: MkDocsConfig) -> None:
        self.docs = Path(config.docs_dir).resolve()
        self.root = Path(config.config_file_path).resolve().parent

    def source(self, uri: str) -> Path:
        """Return the file that the page of this address is made of."""
        if (inside := self.docs / uri).exists():
            return inside
        path = self.root / ("README.md" if uri == _README else uri)
        return path if path.exists() else path.with_suffix("")

    def uri(self, path: Path) -> str:
        """Return the address of a file among the site's sources."""
        if path.is_relative_to(self.docs):
            return path.relative_to(self.docs).as_posix()
        uri = path.relative_to(self.root).as_posix()
        if uri == "README.md":
            return _README
        return uri if path.suffix in _AS_THEY_ARE else f"{uri}.md"

    def target(self, source: Path, link: str) -> Path | None:
        """Return the file that a link leads to; None if it leads to none of this repository."""
        if "://" in link or link.startswith(("/", "mailto:")):
            return None
        path = (source.parent / link).resolve()
        path = path / "README.md" if path.is_dir() else path
        return path if path.is_file() and path.is_relative_to(self.root) else None

    def outside(self, source: Path) -> Iterator[Path]:
        """Return the files outside docs/ that a Markdown file links to."""
        for link in _LINK.findall(source.read_text(encoding="utf-8")):
            path = self.target(source, link)
            if path and not path.is_relative_to(self.docs):
                yield path


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    repository = Repository(config)
    read = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    found: dict[Path, None] = {}
    while read:
        for path in repository.outside(read.pop()):
            if path not in found:
                found[path] = None
                read += [path] if path.suffix == ".md" else []
    for path in found:
        uri = repository.uri(path)
        if path.suffix in _AS_THEY_ARE:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        else:
            files.append(File.generated(config, uri, content=_listing(repository.root, path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn paths in the repository into paths on the site."""
    repository = Repository(config)
    source = repository.source(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        path = repository.target(source, link[0])
        if path is None:
            return link[0]
        return posixpath.relpath(repository.uri(path), posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(moved, markdown)


def _listing(root: Path, path: Path) -> str:
    """Return a file that is no Markdown as a page, which is left out of the search."""
    text = path.read_text(encoding="utf-8")
    fence = "`" * (2 + max(3, *map(len, re.findall("`+", text)), 0))
    head = f"---\nsearch:\n  exclude: true\n---\n# `{path.relative_to(root).as_posix()}`"
    return f"{head}\n\n{fence}{_LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"
