"""A running service, asked through its management API."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

import typer

from layercache.admin.models import OWN_HEADER
from layercache.errors import CacheError, InvalidOption, MissingExtra

__all__ = ["Service", "ServiceFailed", "is_loopback"]

_SECONDS: Final = 10.0


class ServiceFailed(CacheError):
    """The management API does not answer, or refuses what it was asked."""


class Service:
    """A client of one management API; a context manager. Each question takes ten seconds at most.

    Args:
        url: where it is, such as http://127.0.0.1:8790, with the prefix that it is mounted under.
        token: for its header Authorization.

    Raises `typer.BadParameter` for a url or a token that cannot be one. A question raises `ServiceFailed`, and
    `InvalidOption` where the API says that it could never be right.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("--url", "httpx", "admin") from error
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise typer.BadParameter("right is such as http://127.0.0.1:8790", param_hint="--url")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise typer.BadParameter("is no token: it has other signs than ASCII has", param_hint="--token")
        self.url = url.rstrip("/").removesuffix("/dashboard")
        headers = {OWN_HEADER: "1"} if token is None else {"Authorization": f"Bearer {token}"}
        # a proxy would make loopback somewhere else
        direct = is_loopback(parts.hostname)
        self._failures = httpx.HTTPError
        self._client = httpx.Client(headers=headers, timeout=_SECONDS, trust_env=not direct)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    # -- what it has

    def caches(self) -> dict[str, Any]:
        return self._ask("GET", "/caches")

    def stats(self, cache: str) -> dict[str, Any]:
        return self._ask("GET", f"{_path(cache)}/stats")

    def advice(self) -> dict[str, Any]:
        return self._ask("GET", "/advice")

    def explain(self, cache: str, key: str, *, value: bool) -> dict[str, Any]:
        return self._ask("GET", f"{_path(cache)}/keys/{_quoted(key)}", {"value": "true"} if value else None)

    def delete(self, cache: str, key: str) -> bool:
        return bool(self._ask("DELETE", f"{_path(cache)}/keys/{_quoted(key)}")["was_there"])

    def invalidate(self, cache: str, tags: list[str], *, soft: bool) -> None:
        self._ask("POST", f"{_path(cache)}/invalidate", body={"tags": tags, "soft": soft})

    def clear(self, cache: str) -> None:
        self._ask("POST", f"{_path(cache)}/clear")

    # -- asking

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> dict[str, Any]:
        try:
            response = self._client.request(method, self.url + path, params=query, json=body)
            answer = response.json() if "json" in response.headers.get("content-type", "") else None
        except (self._failures, ValueError) as error:
            raise ServiceFailed(f"{self.url} does not answer: {error}") from error
        if not isinstance(answer, dict):
            said = f"it answers {response.status_code}, and no JSON"
            raise ServiceFailed(
                f"{self.url} is no management API: {said}; name what it is mounted under as well"
            )
        if response.is_success:
            return answer
        said = str(answer.get("detail") or answer.get("title") or response.reason_phrase)
        if answer.get("type") in {"urn:layercache:unknown-cache", "urn:layercache:invalid-request"}:
            raise InvalidOption(said)
        if answer.get("type") == "urn:layercache:token-wanted":
            said += "; here it is given by --token, or better LAYERCACHE_ADMIN_TOKEN"
        raise ServiceFailed(f"{self.url} refuses: {said}")


def _path(cache: str) -> str:
    return f"/caches/{_quoted(cache)}"


def _quoted(text: str) -> str:
    # a segment of dots alone is taken out of a path on the way
    quoted = quote(text, safe="", errors="surrogatepass")
    return quoted.replace(".", "%2E") if set(text) <= {"."} else quoted


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address or as `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
