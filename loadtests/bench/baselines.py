"""The baselines: who reads the body and answers a constant, by more and by less of a framework.

``python -m loadtests.bench.baselines NAME PORT``
"""

from __future__ import annotations

import json
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from loadtests.bench.plan import BARE, ENDPOINT, NULL

PATH = "/v1/{account}/queues/{queue}/messages"
ANSWER = {"ids": ["00000000000000000001"]}
BODY = json.dumps(ANSWER).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def handler(request: Request) -> JSONResponse:
    """What a put answers, without the put."""
    await request.body()
    return JSONResponse(ANSWER, status_code=201)


class Endpoint:
    """The same as an ASGI application: without an object for the request, or the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 201, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})


def application(name: str) -> ASGIApp:
    """The baseline of this name."""
    applications: dict[str, ASGIApp] = {
        NULL: Starlette(routes=[Route(PATH, handler, methods=["POST"])]),
        ENDPOINT: Router([Route(PATH, Endpoint(), methods=["POST"])]),
        BARE: Endpoint(),
    }
    return applications[name]


if __name__ == "__main__":
    uvicorn.run(
        application(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
