"""Who may speak to the page's server: on loopback this machine, but no other web page; elsewhere who has the token."""

import hmac
import secrets
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "uar_review"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on that address."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def token_for(host: str) -> str | None:
    """A new secret where other machines can reach the address."""
    return None if is_loopback(host) else secrets.token_urlsafe(24)


class Access:
    """ASGI middleware.

    Without a `token` the Host header must name loopback, so that no web page reaches the server under a name of its own (DNS
    rebinding). With one, each request needs it: in the address of the first, `?token=`, and in a cookie from then on. A
    request that writes must be JSON and come from the page itself, by its Origin header (cross-site request forgery).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is None:
            if _parts(f"//{headers.get('host', '')}").hostname not in LOOPBACK:
                return await self._refuse("this page is served to this machine alone", scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] == "/" and self._is_token(given):
            response = RedirectResponse("/", 303, headers=HEADERS)
            response.set_cookie(_cookie_name(scope), self._token, httponly=True, samesite="strict")
            return await response(scope, receive, send)
        elif not self._is_token(Request(scope).cookies.get(_cookie_name(scope), "")):
            return await self._refuse(
                "open the page by the address with token= that the command printed", scope, receive, send
            )
        if scope["method"] not in ("GET", "HEAD") and not _of_the_page(headers):
            return await self._refuse("only the page itself may write", scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    @staticmethod
    async def _refuse(why: str, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(why, 403, headers=HEADERS)(scope, receive, send)


def _cookie_name(scope: Scope) -> str:
    """Browsers do not tell cookies of two ports apart."""
    return f"{COOKIE}_{scope['server'][1]}"


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # half of an IPv6 address
        return urlsplit("")


def _of_the_page(headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" and _parts(headers.get("origin", "")).netloc == headers.get("host")
