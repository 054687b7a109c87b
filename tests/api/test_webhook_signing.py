"""Signatures as the standard has them."""

from __future__ import annotations

import base64

import pytest

from api.webhooks import signing

# The vector of the standard's own libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_that_of_the_standard() -> None:
    secret = signing.from_text(SECRET)
    assert secret is not None
    assert signing.sign(secret, ID, TIMESTAMP_S, BODY) == SIGNATURE


def test_a_secret_is_told_as_the_standard_does() -> None:
    secret = signing.make()
    assert len(secret) == 32
    assert signing.from_text(signing.text(secret)) == secret
    assert secret != signing.make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        SECRET + "!",
        SECRET[:-4],
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_é",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert signing.from_text(text) is None


def test_an_id_is_the_messages_own_and_has_no_dot() -> None:
    found = signing.webhook_id("a.b", "q.r", "0" * 20)
    assert found == signing.webhook_id("a.b", "q.r", "0" * 20)
    assert found != signing.webhook_id("a", "b.q.r", "0" * 20)
    assert "." not in found
