"""Tokens of an OpenID Connect issuer: which ones are believed, and where keys come from."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from api.access.oidc import Oidc
from api.access.principals import Principal, Role
from api.ports import OidcPolicy
from api.problems import Problem
from local_service import LocalService

ISSUER = "https://id.example"
POLICY = OidcPolicy(issuer=ISSUER, audience="raftq")
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
CURVE = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {
    "iss": ISSUER,
    "aud": "raftq",
    "sub": "worker-7",
    "raftq_account": "shop",
    "raftq_roles": ["produce", "consume"],
}


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


class Moment(LocalService):
    """A node whose clocks are the issuer's."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        self._issuer = issuer

    def now_ms(self) -> int:
        return self._issuer.now_ms()

    def monotonic(self) -> float:
        return self._issuer.later_s


class Issuer:
    """An issuer, and a node that believes it; their clock is the real one, moved on."""

    def __init__(self, policy: OidcPolicy = POLICY) -> None:
        self.keys: dict[str, Any] = {"r1": RSA}
        self.asked: list[str] = []
        self.is_down = False
        self.discovery = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        self.later_s = 0.0
        self.oidc = Oidc(Moment(self), policy, self.fetch)

    def now_ms(self) -> int:
        return int((time.time() + self.later_s) * 1_000)

    async def fetch(self, url: str, most: int) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.is_down:
            raise ConnectionRefusedError
        if url.endswith("/.well-known/openid-configuration"):
            return json.dumps(self.discovery).encode()
        keys = [jwk(key, kid) for kid, key in self.keys.items()]
        return json.dumps({"keys": keys}).encode()

    def token(
        self,
        key: Any = RSA,
        kid: str = "r1",
        algorithm: str = "RS256",
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        said = CLAIMS | {"exp": self.now_ms() // 1_000 + 600} | claims
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key, algorithm, headers={"kid": kid, **(headers or {})})

    async def shown(self, token: str, scheme: str = "Bearer") -> Principal | None:
        headers = {b"authorization": f"{scheme} {token}".encode("latin-1")}
        return await self.oidc({}, headers)

    async def refuses(self, token: str) -> bool:
        try:
            return await self.shown(token) is None
        except Problem as problem:
            return problem.reason == "unauthorized"


def test_a_token_says_account_roles_and_queues() -> None:
    issuer = Issuer()
    who = asyncio.run(issuer.shown(issuer.token(raftq_queues="orders* invoices")))
    assert who == Principal(
        id="worker-7",
        account="shop",
        roles=frozenset((Role.PRODUCE, Role.CONSUME)),
        queues=("orders*", "invoices"),
        kind="token",
        expires_ms=who and who.expires_ms,
    )


@pytest.mark.parametrize("roles", [["produce"], "produce", "openid produce"])
def test_roles_are_a_list_or_words_and_unknown_ones_count_for_nothing(roles: object) -> None:
    issuer = Issuer()
    who = asyncio.run(issuer.shown(issuer.token(raftq_roles=roles)))
    assert who is not None
    assert who.roles == {Role.PRODUCE}


def test_what_is_no_token_is_left_to_other_ways() -> None:
    issuer = Issuer()
    assert asyncio.run(issuer.shown("rq_something")) is None
    assert asyncio.run(issuer.shown(issuer.token(), scheme="Basic")) is None
    assert asyncio.run(issuer.oidc({}, {})) is None


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": 1},
    "without an end": {"exp": None},
    "of another issuer": {"iss": "https://evil.example"},
    "for another audience": {"aud": "other"},
    "without an audience": {"aud": None},
    "not good yet": {"nbf": 4_000_000_000},
    "of nobody": {"sub": None},
    "of no account": {"raftq_account": None},
    "of an account that is no text": {"raftq_account": ["shop"]},
    "of the operator's account": {"raftq_account": ""},
    "without roles": {"raftq_roles": None},
    "with unknown roles": {"raftq_roles": ["root"]},
    "with roles that are no words": {"raftq_roles": [1, {"a": 2}]},
    "of an administrator": {"raftq_roles": ["admin"]},
}


@pytest.mark.parametrize("what", BAD_CLAIMS)
def test_a_token_is_refused(what: str) -> None:
    issuer = Issuer()
    assert asyncio.run(issuer.refuses(issuer.token(**BAD_CLAIMS[what])))
    assert not asyncio.run(issuer.refuses(issuer.token()))


def test_only_the_issuers_keys_and_the_operators_algorithms_count() -> None:
    issuer = Issuer()
    public = jwk(RSA, "r1")["n"]  # What everybody knows of the key.
    good = issuer.token()
    head, body, signature = good.split(".")
    unsigned = jwt.encode(CLAIMS | {"exp": issuer.now_ms()}, None, "none", headers={"kid": "r1"})
    bad = [
        issuer.token(OTHER_RSA),
        issuer.token(OTHER_RSA, kid="r2"),
        issuer.token(OTHER_RSA, headers={"jwk": jwk(OTHER_RSA, "r1")}),
        issuer.token(OTHER_RSA, headers={"jku": "https://evil.example/keys"}),
        issuer.token(algorithm="RS512"),
        issuer.token(public, algorithm="HS256"),
        unsigned,
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}.{signature}AAAA",
        f"{head}.{jwt.utils.base64url_encode(b'{}').decode()}.{signature}",
        f"..{signature}",
        "..",
        "a.b.c",
        "\xff.\xfe.\xfd",
        "x" * 100_000 + ".b.c",
    ]
    for token in bad:
        assert asyncio.run(issuer.refuses(token)), token[:80]
    assert not asyncio.run(issuer.refuses(good))
    assert not [url for url in issuer.asked if "evil" in url]


def test_elliptic_curves_are_known_too() -> None:
    issuer = Issuer()
    issuer.keys["e1"] = CURVE
    who = asyncio.run(issuer.shown(issuer.token(CURVE, "e1", "ES256")))
    assert who is not None


def test_a_token_can_make_an_operator_where_that_is_allowed() -> None:
    issuer = Issuer(msgspec.structs.replace(POLICY, operators=True))
    token = issuer.token(raftq_roles=["admin"], raftq_account=None)
    who = asyncio.run(issuer.shown(token))
    assert who is not None
    assert (who.account, who.roles) == ("", {Role.ADMIN})


def test_keys_are_fetched_once_for_all_who_ask_at_the_same_time() -> None:
    issuer = Issuer()

    async def many() -> None:
        tokens = [issuer.token(sub=f"w{number}") for number in range(20)]
        assert all(await asyncio.gather(*map(issuer.shown, tokens)))

    asyncio.run(many())
    assert issuer.asked == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"]


def test_a_new_key_is_found_and_strangers_cannot_make_the_node_ask_again_and_again() -> None:
    issuer = Issuer(msgspec.structs.replace(POLICY, jwks_url=f"{ISSUER}/keys"))
    assert not asyncio.run(issuer.refuses(issuer.token()))
    for number in range(50):
        assert asyncio.run(issuer.refuses(issuer.token(OTHER_RSA, kid=f"k{number}")))
    assert len(issuer.asked) == 1
    issuer.keys["r2"] = OTHER_RSA
    issuer.later_s += POLICY.retry_s + 1
    assert not asyncio.run(issuer.refuses(issuer.token(OTHER_RSA, kid="r2")))
    assert len(issuer.asked) == 2


def test_a_key_that_the_issuer_has_withdrawn_is_good_no_longer() -> None:
    issuer = Issuer()
    assert not asyncio.run(issuer.refuses(issuer.token()))
    issuer.keys = {"r2": OTHER_RSA}
    issuer.later_s += POLICY.refresh_s + 1
    assert asyncio.run(issuer.refuses(issuer.token(sub="another")))


def test_known_keys_last_while_the_issuer_is_down_but_not_for_ever() -> None:
    issuer = Issuer()
    assert not asyncio.run(issuer.refuses(issuer.token(sub="a")))
    issuer.is_down = True
    issuer.later_s += POLICY.keep_s - 1
    assert not asyncio.run(issuer.refuses(issuer.token(sub="b", iat=None, exp=4_000_000_000)))
    issuer.later_s += 2
    with pytest.raises(Problem) as caught:
        asyncio.run(issuer.shown(issuer.token(sub="c")))
    assert caught.value.reason == "issuer_unreachable"


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "https://evil.example"}, {"jwks_uri": "http://id.example/keys"}, {"jwks_uri": 1}],
)
def test_a_discovery_document_that_is_not_the_issuers_is_not_followed(
    changed: dict[str, object],
) -> None:
    issuer = Issuer()
    issuer.discovery |= changed  # type: ignore[arg-type]
    with pytest.raises(Problem, match="issuer"):
        asyncio.run(issuer.shown(issuer.token()))
    assert len(issuer.asked) == 1


def test_a_token_that_was_verified_ends_all_the_same() -> None:
    issuer = Issuer()
    token = issuer.token()
    assert asyncio.run(issuer.shown(token)) == issuer.oidc.known(token)
    issuer.later_s += 600 + POLICY.leeway_s + 1
    assert issuer.oidc.known(token) is None
