"""The page of the dashboard as it is sent: for everybody, and sealed against what is not of it."""

from __future__ import annotations

import base64
import hashlib
import re

from asking import Api


def test_the_page_is_for_everybody_and_holds_nothing_of_ours(guarded: Api) -> None:
    answer = guarded.get("/dashboard")

    assert answer.status_code == 200
    assert "stock" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


def test_the_policy_lets_in_this_style_and_this_script_alone(guarded: Api) -> None:
    answer = guarded.get("/dashboard")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))

    assert policy["default-src"] == "'none'"
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    markup = re.sub(r"<script>.*?</script>", "", answer.text, flags=re.DOTALL)
    assert not re.search(r"\son\w+=|style=|https?://", markup)
    assert "innerHTML" not in answer.text
