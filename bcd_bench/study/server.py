"""The web server of a study, an ASGI app. Needs the extra `study`."""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.study.design import MEDIA, Study
from bcd_bench.study.files import MOST_SECONDS, write_ratings
from bcd_bench.study.page import render_page, shown_item
from bcd_bench.study.questions import QUESTIONS
from bcd_bench.study.store import Conflict, Rater, Rating, Store
from bcd_bench.types.errors import MissingDependencyError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ADMIN_NAME", "admin_token", "build_app", "require"]

ADMIN_NAME = "admin-token"
LARGEST_BODY = 2000
"""Bytes of a request; a rating has about 150."""
COOKIE_DAYS = 30
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def require(*packages: str) -> None:
    """Raise `MissingDependencyError` unless these packages of the extra `study` are installed."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"this command needs the package {missing[0]!r}", hint='pip install "bcd-bench[study]"'
        )


def admin_token(folder: Path) -> str:
    """The token of the admin export, created with the first call in a file that only its owner may read."""
    path = folder / ADMIN_NAME
    if not path.is_file() or not path.read_text(encoding="ascii").strip():  # empty after a crash
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24) + "\n", encoding="ascii")
    return path.read_text(encoding="ascii").strip()


class _Refusal(Exception):
    """A request that is refused, with its status and one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Limits:
    """Requests per minute from one address: `rate` ratings, a fifth as many new raters, 10 tries of the admin token."""

    def __init__(self, rate: int) -> None:
        from limits import RateLimitItemPerMinute
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._items = {
            "request": RateLimitItemPerMinute(rate),
            "start": RateLimitItemPerMinute(max(1, rate // 5)),
            "admin": RateLimitItemPerMinute(10),
        }

    def check(self, kind: str, request: Request) -> None:
        """Raise `_Refusal` if there were too many requests. Addresses stay in memory for a minute."""
        address = request.client.host if request.client else "unknown"
        if not self._limiter.hit(self._items[kind], kind, address):
            raise _Refusal(429, "too many requests: wait a minute")


def build_app(study: Study, store: Store, folder: Path, admin: str, *, rate: int) -> Starlette:
    """The app of a study in `folder`, with at most `rate` requests per minute and address that change something.

    Every answer to a request that is refused is one line of JSON, `{"error": …}`, with a status of 4xx.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route

    site = _Site(study, store, folder, admin, rate)
    return Starlette(
        routes=[
            Route("/", site.page),
            Route("/api/start", site.start, methods=["POST"]),
            Route("/api/state", site.state),
            Route("/api/rating", site.rate, methods=["POST"]),
            Route(f"/{MEDIA}/{{name}}", site.video),
            Route("/admin/ratings.csv", site.export),
        ],
        middleware=[Middleware(_Secure)],
        exception_handlers={_Refusal: _refuse},
    )


class _Secure:
    """Adds security headers to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


async def _refuse(request: Request, error: _Refusal) -> Response:
    from starlette.responses import JSONResponse

    headers = {"Retry-After": "60"} if error.status == 429 else None
    return JSONResponse({"error": str(error)}, error.status, headers)


class _Site:
    def __init__(self, study: Study, store: Store, folder: Path, admin: str, rate: int) -> None:
        self._study, self._store, self._admin = study, store, admin
        self._media = folder / MEDIA
        self._names = study.media()
        self._limits = _Limits(rate)
        self._html = render_page(study)
        self._cookie = f"rater-{study.id}"

    async def page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        return HTMLResponse(self._html, headers={"Cache-Control": "no-cache"})

    async def start(self, request: Request) -> Response:
        """Add a rater, unless the cookie names one, and set the cookie."""
        from starlette.concurrency import run_in_threadpool

        self._limits.check("start", request)
        await _body(request)
        rater = await self._rater(request)
        token = ""
        if rater is None:
            total = len(self._study.order(0))
            token, rater = await run_in_threadpool(self._store.start, self._study.balanced, total)
        response = await self._state(rater)
        if token:
            response.set_cookie(
                self._cookie,
                token,
                max_age=COOKIE_DAYS * 86400,
                path=(request.scope.get("root_path") or "") + "/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )
        return response

    async def state(self, request: Request) -> Response:
        return await self._state(await self._rater(request))

    async def rate(self, request: Request) -> Response:
        """Store a rating of the item that is next, and answer when it is on the disk."""
        from starlette.concurrency import run_in_threadpool

        self._limits.check("request", request)
        rater = await self._rater(request)
        if rater is None:
            raise _Refusal(401, "no rater: open the page first")
        rating = self._rating(await _body(request), rater)
        rated = await run_in_threadpool(self._store.rated, rater)
        order = [item.id for item in self._study.order(rater.slot)]
        following = next((item for item in order if item not in rated), None)
        if rating.item not in rated and rating.item != following:
            raise _Refusal(409, "this item is not the next one")
        try:
            await run_in_threadpool(self._store.add, rating)
        except Conflict:
            raise _Refusal(409, "this item was rated already, with other scores") from None
        return await self._state(rater)

    async def video(self, request: Request) -> Response:
        from starlette.responses import FileResponse

        name = request.path_params["name"].removesuffix(".mp4")
        if name not in self._names or not (self._media / f"{name}.mp4").is_file():
            raise _Refusal(404, "no such video")
        return FileResponse(
            self._media / f"{name}.mp4", media_type="video/mp4", headers={"Cache-Control": "private, max-age=86400"}
        )

    async def export(self, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import Response

        self._limits.check("admin", request)
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._admin}".encode()):
            raise _Refusal(401, "the export needs the header Authorization: Bearer TOKEN")
        ratings = await run_in_threadpool(self._store.ratings)
        return Response(
            write_ratings(self._study, ratings), media_type="text/csv", headers={"Cache-Control": "no-store"}
        )

    async def _rater(self, request: Request) -> Rater | None:
        from starlette.concurrency import run_in_threadpool

        token = request.cookies.get(self._cookie, "")
        return await run_in_threadpool(self._store.find, token) if token else None

    async def _state(self, rater: Rater | None) -> Response:
        """The item that a rater sees next, and the one after it, whose videos the browser may load."""
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        if rater is None:
            return JSONResponse({"started": False}, headers={"Cache-Control": "no-store"})
        rated = await run_in_threadpool(self._store.rated, rater)
        order = self._study.order(rater.slot)
        left = [item for item in order if item.id not in rated]
        state = {
            "started": True,
            "total": len(order),
            "done": len(order) - len(left),
            "item": shown_item(left[0]) if left else None,
            "next": shown_item(left[1]) if len(left) > 1 else None,
            "code": None if left else rater.id,
        }
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    def _rating(self, body: dict[str, Any], rater: Rater) -> Rating:
        """Raises `_Refusal` for a body that is not a rating of this study."""
        keys = [question.key for question in QUESTIONS]
        if set(body) != {"item", "scores", "seconds"}:
            raise _Refusal(422, "a rating has item, scores and seconds")
        item, scores, seconds = body["item"], body["scores"], body["seconds"]
        if not isinstance(item, str) or item not in {one.id for one in self._study.order(rater.slot)}:
            raise _Refusal(422, "item is not of this study")
        if not isinstance(scores, dict) or set(scores) != set(keys):
            raise _Refusal(422, f"scores has {', '.join(keys)}")
        if any(type(score) is not int or not 1 <= score <= 5 for score in scores.values()):
            raise _Refusal(422, "a score is an integer from 1 to 5")
        if type(seconds) not in (int, float) or not 0 <= seconds <= MOST_SECONDS or not math.isfinite(seconds):
            raise _Refusal(422, "seconds is a number from 0 to 86400")
        return Rating(rater, item, scores, round(float(seconds), 1))


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises `_Refusal` for other types and for long ones.

    A page elsewhere cannot send this content type without asking, which is never allowed.
    """
    if not re.fullmatch(r"application/json(;.*)?", request.headers.get("content-type", "")):
        raise _Refusal(415, "the content type is not application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _Refusal(413, f"the request is longer than {LARGEST_BODY} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _Refusal(400, "the request is not a JSON object")
    return content
