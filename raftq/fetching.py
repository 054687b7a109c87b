"""Small documents from URLs that the operator has named: the keys of a token's issuer."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2

TIMEOUT_S = 5.0


class Fetcher:
    """Fetches over TLS that is verified, and follows no redirect to where nobody named."""

    def __init__(self, ca_file: str = "") -> None:
        context = ssl.create_default_context()
        if ca_file:
            context.load_verify_locations(Path(ca_file))
        self._context = context

    async def fetch(self, url: str, most: int) -> bytes:
        """What lies there, of at most so many bytes; raises OSError."""
        try:
            async with (
                # A connection for each: it is used every few minutes.
                httpx2.AsyncClient(
                    verify=self._context, timeout=TIMEOUT_S, trust_env=False
                ) as client,
                client.stream("GET", url, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    raise OSError(f"{url} was answered {answer.status_code}")
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > most:
                        raise OSError(f"{url} has more than {most} bytes")
                return body
        except httpx2.HTTPError as error:
            raise OSError(f"{url}: {error}") from error
