"""The baseline: a Starlette handler that reads the body and answers a constant.

``python -m loadtests.bench.null_server PORT``
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def put(request: Request) -> JSONResponse:
    """What a put answers, without the put."""
    await request.body()
    return JSONResponse({"ids": ["00000000000000000001"]}, status_code=201)


app = Starlette(
    routes=[Route("/v1/{account}/queues/{queue}/messages", put, methods=["POST"])],
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
