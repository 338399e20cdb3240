"""What the pages need to become a site: a hook of mkdocs, which `mkdocs.yml` names.

The pages are written to be read in the repository as well. There they link to files outside of this folder, which are
not part of the site: in the site such a link is its text alone.
"""

from __future__ import annotations

import re
from posixpath import join, normpath
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
_OUTSIDE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon))[^>]*\bhref=["']?(?:https?:)?//[^>]*>"""
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave the text of links that lead out of `docs`."""
    folder = page.file.src_uri.rpartition("/")[0]

    def kept(link: re.Match[str]) -> str:
        return link[1] if normpath(join(folder, link[2])).startswith("..") else link[0]

    return _LINK.sub(kept, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that has a reader's browser ask somebody else."""
    found = _OUTSIDE.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} asks for something from outside: {found[0]}")
    return output
