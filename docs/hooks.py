"""What mkdocs does here beside its own: the page of the command line, files of the repository, no foreign scripts.

- ``reference/command-line.md`` is made from the program itself, so that it cannot age.
- Pages link to files outside ``docs`` as they lie in the repository (``../examples/count_smears.py``); those files are
  put into the site, below ``repository/``.
- A page that would load a script, a style or a font from another host is a warning, and with ``--strict`` an error.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks")

COMMANDS = "reference/command-line.md"
OUTSIDE = "repository"
"""Folder of the site for files that lie outside ``docs``."""

LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")
FOREIGN = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the command line and what pages link to outside of ``docs``."""
    files.append(File.generated(config, COMMANDS, content=command_page()))
    root = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        if page.src_uri == COMMANDS:
            continue
        for target in LINK.findall(page.content_string):
            inside = outside(page.src_uri, target)
            if inside and files.get_file_from_path(f"{OUTSIDE}/{inside}") is None:
                path, uri = root / inside, f"{OUTSIDE}/{inside}"
                if not path.is_file():
                    log.warning("%s: there is no file %s", page.src_uri, target)
                    continue
                files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside of ``docs`` lead to their copies in the site."""
    here = page.file.src_uri
    if here.startswith(OUTSIDE):
        return markdown

    def moved(found: re.Match[str]) -> str:
        inside = outside(here, found.group(1))
        if not inside:
            return found.group(1)
        return relpath(f"{OUTSIDE}/{inside}", str(PurePosixPath(here).parent))

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warn of anything that a browser would fetch from another host."""
    for found in FOREIGN.finditer(output):
        log.warning("%s would load %s", page.file.src_uri, found.group(1))
    return output


def outside(page: str, target: str) -> str:
    """Path below the repository's root of a file that a page links to; empty where it lies in ``docs``."""
    path = normpath(str(PurePosixPath("docs", page).parent / target))
    return "" if path.startswith(("docs/", "..")) else path


def command_page() -> str:
    """Page of all commands, arguments and options, as the program itself tells them."""
    import typer
    from typer.cli import get_docs_for_click

    from napari_dinobloom.cli import app

    main = typer.main.get_command(app)
    name = "napari-dinobloom"
    text = get_docs_for_click(obj=main, ctx=typer.Context(main, info_name=name), name=name, title="The command line")
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text)  # cut short, and each has a heading below
    return text.replace("**Usage**:\n\n", "")
