"""The dashboard: one page that asks the API for what it shows. There is nothing of anybody's in the page itself, so it
is for everybody; what it asks for, `access` decides.

Rule: the page comes from here and from nowhere else. Its policy names the digests of its one style and its one script,
so that nothing which finds its way into it runs.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import Response

__all__ = ["page"]

_FILES: Final = Path(__file__).parent / "dashboard"


def page() -> Response:
    """The dashboard."""
    content, policy = _made()
    headers = {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    return Response(content, headers=headers, media_type="text/html")


@cache
def _made() -> tuple[str, str]:
    """Return the page, and the policy that fits it."""
    markup, style, script = (
        (_FILES / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "script.js")
    )
    content = markup.replace("/* style */", style).replace("/* script */", script)
    policy = "; ".join([
        "default-src 'none'",
        f"style-src '{_digest(style)}'",
        f"script-src '{_digest(script)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ])  # fmt: skip
    return content, policy


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
