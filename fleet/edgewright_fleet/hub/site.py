"""`Site`: from a request to a response; which paths there are, and who may do what.

Reading is open unless the hub is private; nothing is changed without an operator's token, by header or by
session. A browser's session is guarded three times: its cookie is `SameSite=Strict`, a form that changes
something must come from one of the hub's own origins, and must hold the session's secret. The `Host` must be
ours too, or a name that an attacker lets point here (DNS rebinding) could read the pages. Pure but for what
it calls; `web.py` is the socket.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from edgewright.errors import EdgewrightError, RolloutError
from edgewright_fleet.hub.pages import NotFoundError, Pages
from edgewright_fleet.hub.rollouts import OPERATIONS, Rollouts
from edgewright_fleet.hub.tokens import SESSION_S, Holder, Session, Tokens

COOKIE = "edgewright-hub"
STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """What a client asks; the keys of `headers` are in lower case."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """What it gets."""

    status: int
    body: bytes
    content_type: str = HTML
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Visitor:
    """Who asks: nobody, the holder of a token, or a browser in a session."""

    holder: Holder | None = None
    session: Session | None = None


class Site:
    """The hub's paths. `origins` are the addresses at which browsers reach it, `http://127.0.0.1:9464`."""

    def __init__(
        self,
        pages: Pages,
        *,
        metrics: Callable[[], str],
        healthy: Callable[[], bool],
        clock: Callable[[], float],
        origins: frozenset[str],
        rollouts: Rollouts | None = None,
        tokens: Tokens | None = None,
        private: bool = False,
    ) -> None:
        self._pages, self._metrics, self._healthy, self._clock = pages, metrics, healthy, clock
        self._origins, self._hosts = origins, {urlsplit(origin).netloc for origin in origins}
        self._rollouts, self._tokens, self._private = rollouts, tokens, private

    def respond(self, request: Request) -> Response:
        """The answer to a request; an error of ours is a page of one sentence."""
        visitor = Visitor()
        try:
            if request.headers.get("host", "") not in self._hosts:
                return self._say(
                    visitor, request, 421, "Not this hub", "Start it with --origin for this address."
                )
            if request.path == "/healthz":
                return _text(200, "ok\n") if self._healthy() else _text(503, "not connected to the broker\n")
            if request.path.startswith("/static/"):
                return _static(request)
            visitor = self._visitor(request)
            if request.method == "POST":
                return self._post(request, visitor)
            return self._get(request, visitor)
        except (NotFoundError, EdgewrightError) as error:
            status = (
                404 if isinstance(error, NotFoundError) else 409 if isinstance(error, RolloutError) else 503
            )
            return self._say(
                visitor, request, status, "Not found" if status == 404 else "Not possible", str(error)
            )

    def _visitor(self, request: Request) -> Visitor:
        if self._tokens is None:
            return Visitor()
        if (token := _bearer(request)) is not None:
            return Visitor(self._tokens.holder(token))
        session = self._tokens.session(_cookie(request))
        return Visitor(session.holder if session else None, session)

    def _get(self, request: Request, visitor: Visitor) -> Response:
        path, query, now_s = request.path, request.query, self._clock()
        if path == "/login":
            return _html(self._pages.login(self._frame(visitor, request), ""))
        if self._private and visitor.holder is None:
            if path == "/metrics":
                return _text(401, "a token is needed\n")
            return _redirect("/login")
        if path == "/metrics":
            return Response(200, self._metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        frame = self._frame(visitor, request)
        kind, _, name = path.strip("/").partition("/")
        if path == "/":
            return _html(self._pages.fleet(frame, now_s))
        if path == "/devices":
            return _html(self._pages.devices(frame, now_s, query))
        if path == "/rollouts":
            return _html(self._pages.rollouts(frame))
        if kind == "device":
            return _html(self._pages.device(frame, now_s, name, query))
        if kind == "rollout":
            return _html(self._pages.rollout(frame, name, query))
        raise NotFoundError("there is no such page")

    def _post(self, request: Request, visitor: Visitor) -> Response:
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        by_header = _bearer(request) is not None
        # A browser sends a bearer token for nobody but the script that has it.
        if not by_header and request.headers.get("origin") not in self._origins:
            return self._say(
                visitor, request, 403, "Refused", "This form was not sent by the hub's own page."
            )
        if request.path == "/login":
            return self._log_in(request, form)
        if visitor.holder is None:
            return self._say(visitor, request, 401, "Not logged in", "Nothing is changed without a token.")
        if visitor.session and not hmac.compare_digest(
            visitor.session.csrf.encode(), form.get("csrf", "").encode()
        ):
            return self._say(visitor, request, 403, "Refused", "The form is too old; load the page again.")
        if request.path == "/logout":
            if self._tokens:
                self._tokens.close_session(_cookie(request))
            return _redirect("/", ("Set-Cookie", f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"))
        kind, _, rest = request.path.strip("/").partition("/")
        name, _, operation = rest.partition("/")
        wish = next((known for known in OPERATIONS if known == operation), None)
        if kind != "rollout" or wish is None or self._rollouts is None:
            raise NotFoundError("there is no such operation")
        if not visitor.holder.may_write:
            return self._say(
                visitor, request, 403, "Refused", f"{visitor.holder.name} may read, and not {operation}."
            )
        self._rollouts.ask(name, wish, visitor.holder.name)
        if by_header:
            return _text(200, f"asked for {operation} of {name}\n")
        return _redirect(f"/rollout/{name}")

    def _log_in(self, request: Request, form: dict[str, str]) -> Response:
        holder = self._tokens.holder(form.get("token", "")) if self._tokens else None
        if holder is None or self._tokens is None:
            page = self._pages.login(self._frame(Visitor(), request), "This token is not known here.")
            return Response(401, page.encode())
        value, _ = self._tokens.open_session(holder)
        secure = "; Secure" if request.headers.get("origin", "").startswith("https:") else ""
        cookie = f"{COOKIE}={value}; Path=/; Max-Age={SESSION_S:.0f}; HttpOnly; SameSite=Strict{secure}"
        return _redirect("/", ("Set-Cookie", cookie))

    def _frame(self, visitor: Visitor, request: Request) -> dict[str, Any]:
        """What every page shows around its own matter."""
        return {
            "holder": visitor.holder,
            "csrf": visitor.session.csrf if visitor.session else "",
            "may_write": bool(visitor.session and visitor.holder and visitor.holder.may_write),
            "can_log_in": self._tokens is not None,
            "connected": self._healthy(),
            "path": request.path,
            "now_s": self._clock(),
        }

    def _say(self, visitor: Visitor, request: Request, status: int, title: str, text: str) -> Response:
        return Response(status, self._pages.message(self._frame(visitor, request), title, text).encode())


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _cookie(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _static(request: Request) -> Response:
    name = request.path.removeprefix("/static/")
    if name not in STATIC:
        raise NotFoundError("there is no such file")
    data = resources.files("edgewright_fleet.hub").joinpath("static", name).read_bytes()
    return Response(200, data, STATIC[name], (("Cache-Control", "max-age=3600"),))


def _html(text: str) -> Response:
    return Response(200, text.encode())


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), "text/plain; charset=utf-8")


def _redirect(to: str, *headers: tuple[str, str]) -> Response:
    return Response(303, b"", HTML, (("Location", to), *headers))
