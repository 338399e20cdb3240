"""Who may do what.

Rules:
1. Where settings have a token, each request brings one, in the header Authorization: nothing that a browser sends by
   itself opens anything. What only looks takes either token, what changes something the write token.
2. Where they have none, only who connects from this same machine is served, by the address of the connection: what a
   request says of itself, as in X-Forwarded-For, is not believed; that it was forwarded at all is reason to refuse it.
3. A browser on this machine may be made to ask by a page from anywhere. So, without tokens, the name that it asks by
   has to be one of this machine (DNS rebinding), what comes from another site is refused, and what changes something
   needs a header that no page of another origin can send.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final, Literal, TypeAlias

from fastapi import Request

from layercache.admin.models import OWN_HEADER
from layercache.admin.problems import refuse
from layercache.options import Secret
from layercache.settings import AdminSettings

__all__ = ["Caller", "Scope", "admitted"]

Scope: TypeAlias = Literal["read", "write"]

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        scope: what they may do.
        id: the scope and the beginning of a digest of the token, or "loopback" without one.
        address: that the connection comes from.
    """

    scope: Scope
    id: str
    address: str


def admitted(request: Request, settings: AdminSettings, wanted: Scope) -> Caller:
    """Return who asks, or refuse the request with 401 or 403."""
    address = request.client.host if request.client is not None else "unknown"
    if settings.read_token is None and settings.write_token is None:
        return _of_this_machine(request, address, wanted)
    caller = _with_token(request, settings, address)
    if wanted == "write" and caller.scope != "write":
        headers = {"WWW-Authenticate": 'Bearer realm="layercache", error="insufficient_scope"'}
        refuse("not-permitted", "this token only permits to look; the write token is wanted", headers)
    return caller


def _with_token(request: Request, settings: AdminSettings, address: str) -> Caller:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    realm = 'Bearer realm="layercache"'
    if kind.lower() != "bearer" or not given:
        said = "send the header Authorization: Bearer TOKEN, with a token of [default.admin] in the settings"
        refuse("token-wanted", said, {"WWW-Authenticate": realm})
    digest = _digest(given.strip())
    # both are always compared, as digests: neither length nor beginning of a token shows in the time it takes
    may_write, may_read = _is(settings.write_token, digest), _is(settings.read_token, digest)
    if not may_write and not may_read:
        refuse(
            "token-wanted",
            "this token is none of ours",
            {"WWW-Authenticate": f'{realm}, error="invalid_token"'},
        )
    scope: Scope = "write" if may_write else "read"
    return Caller(scope, f"{scope}:{digest.hex()[:8]}", address)


def _digest(token: str) -> bytes:
    return hashlib.sha256(b"layercache.admin:" + token.encode("utf-8", "surrogatepass")).digest()


def _is(token: Secret | None, digest: bytes) -> bool:
    known = b"" if token is None else _digest(token.get_secret_value())
    return compare_digest(known, digest)


def _of_this_machine(request: Request, address: str, wanted: Scope) -> Caller:
    forwarded = [name for name in _FORWARDED if name in request.headers]
    if not _is_loopback(address) or forwarded:
        said = f"it was forwarded ({forwarded[0]})" if forwarded else "it comes from elsewhere"
        refuse(
            "not-permitted",
            f"without a token only this same machine is served, and {said}; set tokens in [default.admin]",
        )
    host = request.headers.get("host", "")
    if not _is_named_loopback(host):
        refuse("not-permitted", "without a token it is asked for by a name of loopback, such as 127.0.0.1")
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} or not _is_own(
        request, host
    ):
        refuse("not-permitted", "it comes from a page of another origin")
    if wanted == "write" and not request.headers.get(OWN_HEADER):
        refuse("not-permitted", f"without a token what changes something needs the header {OWN_HEADER}: 1")
    return Caller("write", "loopback", address)


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:  # of a Unix socket, or none
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _is_named_loopback(host: str) -> bool:
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))


def _is_own(request: Request, host: str) -> bool:
    origin = request.headers.get("origin")
    return origin is None or origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower()}
