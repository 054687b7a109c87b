"""Real nodes: tokens of an issuer, and URLs that one node signs and another believes."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from api.access import minting
from cluster import Cluster, until

BOOTSTRAP = minting.new_token(minting.new_id())
OPERATOR = {"Authorization": f"Bearer {BOOTSTRAP}"}
MESSAGES = "/v1/shop/queues/orders/messages"


class Issuer:
    """An OpenID Connect issuer as far as anybody asks it anything here."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        documents: dict[str, Any] = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
        documents["/.well-known/openid-configuration"] = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
        }
        documents["/keys"] = {"keys": [{**public, "kid": "e1"}]}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def bearing(self, **claims: object) -> dict[str, str]:
        """The header with a token."""
        said = {
            "iss": self.url,
            "aud": "raftq",
            "sub": "worker",
            "exp": int(time.time()) + 300,
            "raftq_account": "shop",
            "raftq_roles": ["produce"],
        }
        token = jwt.encode(said | claims, self.key, "ES256", headers={"kid": "e1"})
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(scope="module")
def cluster(make_shared: Callable[..., Cluster], issuer: Issuer) -> Cluster:
    return make_shared(
        {
            "auth": {"required": True, "bootstrap_key": BOOTSTRAP},
            "oidc": {"issuer": issuer.url, "audience": "raftq", "algorithms": ["ES256"]},
        }
    )


def test_a_token_of_the_issuer_is_good_for_what_it_says_and_at_each_node(
    cluster: Cluster, issuer: Issuer
) -> None:
    for node in cluster:
        put = node.request("POST", MESSAGES, {"body": 1}, headers=issuer.bearing())
        assert put.status == 201, put.body
        assert node.request("GET", MESSAGES, headers=issuer.bearing()).status == 403
        for bad in ({"raftq_account": "other"}, {"aud": "other"}, {"exp": 1}):
            answer = node.request("POST", MESSAGES, {"body": 1}, headers=issuer.bearing(**bad))
            assert (answer.status, answer.json()["reason"]) == (401, "unauthorized"), bad


def test_a_url_signed_at_one_node_is_good_at_another_until_its_key_is_revoked(
    cluster: Cluster,
) -> None:
    one, other = cluster["n1"], cluster["n2"]
    settings = {"roles": ["produce", "consume"]}
    # The leader adds the operator's key once it leads.
    until(
        lambda: one.request("GET", "/cluster", headers=OPERATOR).status == 200, "the operator's key"
    )
    key = one.request("POST", "/v1/shop/keys", settings, headers=OPERATOR).json()
    bearing = {"Authorization": f"Bearer {key['key']}"}
    wanted = {"methods": ["POST"], "paths": ["messages"]}
    shared = one.request("POST", "/v1/shop/queues/orders/share", wanted, headers=bearing)
    assert shared.status == 200, shared.body
    [url] = shared.json()["urls"]
    assert other.request("POST", url, {"body": 1}).status == 201
    assert other.request("POST", url.replace("orders", "others"), {"body": 1}).status == 401
    assert other.request("GET", url).status == 401
    revoked = one.request("DELETE", f"/v1/shop/keys/{key['id']}", headers=OPERATOR)
    assert revoked.status == 204, revoked.body
    index = revoked.headers["raftq-applied-index"]
    seen = {"Raftq-Min-Index": index, **OPERATOR}
    assert other.request("GET", "/v1/shop", headers=seen).status == 200
    assert other.request("POST", url, {"body": 1}).status == 401
