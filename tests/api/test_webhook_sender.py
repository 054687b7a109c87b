"""Posting over real connections: kept ones, broken ones, and addresses that must not be reached."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.ports import WebhookPolicy
from api.webhooks import sender as sender_module
from api.webhooks.sender import NoAnswer, Resolve, Sender
from api.webhooks.targets import Forbidden, Rules
from receiver import Receiver, eventually, receiving, status

pytestmark = pytest.mark.anyio

RULES = Rules(WebhookPolicy(http=True, allow=("127.0.0.1/32",)))
STRICT = Rules(WebhookPolicy(http=True))
HEADERS = [(b"x-name", b"value")]


def resolving(*answers: list[str]) -> Resolve:
    """A resolver that answers so, one after the other, and the last one for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


@asynccontextmanager
async def sending(
    *, rules: Rules = RULES, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Sender]:
    sender = Sender(
        rules,
        resolve=resolve or resolving(["127.0.0.1"]),
        tls=tls or ssl.create_default_context(),
    )
    try:
        yield sender
    finally:
        sender.close()


async def post(sender: Sender, receiver: Receiver, body: bytes = b"body") -> int:
    answer = await sender.post(RULES.target(receiver.url), HEADERS, body)
    return answer.status


async def test_a_request_is_whole() -> None:
    async with receiving() as receiver, sending() as sender:
        url = f"http://hook.example:{receiver.port}/a/b?c=d"
        answer = await sender.post(RULES.target(url), HEADERS, b"\x00\r\n\xff")
        assert answer.status == 204
        (got,) = receiver.requests
        assert got.line == "POST /a/b?c=d HTTP/1.1"
        assert got.body == b"\x00\r\n\xff"
        assert got.headers == {
            "host": f"hook.example:{receiver.port}",
            "user-agent": "raftq",
            "content-length": "4",
            "x-name": "value",
        }


async def test_a_header_that_would_be_two_is_left_out() -> None:
    async with receiving() as receiver, sending() as sender:
        headers = [(b"a", b"b\r\nc: d"), (b"e\nf", b"g"), (b"h", b"i\x00"), (b"k", b"l")]
        await sender.post(RULES.target(receiver.url), headers, b"")
        assert set(receiver.requests[0].headers) == {"host", "user-agent", "content-length", "k"}


async def test_a_connection_is_used_again() -> None:
    async with receiving() as receiver, sending() as sender:
        assert [await post(sender, receiver) for _ in range(3)] == [204] * 3
        assert receiver.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        status(200, "connection: close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 500_000,
    ],
    ids=["it says so", "an old one", "too much"],
)
async def test_a_connection_is_not_used_again(answer: bytes) -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answers.append(answer)
        assert [await post(sender, receiver) for _ in range(2)] == [200, 204]
        assert receiver.connections == 2


async def test_a_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.closes = True
        assert await post(sender, receiver) == 204
        await eventually(lambda: receiver.open == 0, "the receiver has closed")
        assert await post(sender, receiver) == 204
        assert receiver.bodies == [b"body"] * 2


async def test_idle_and_old_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver, sending() as sender:
        monkeypatch.setattr(sender_module, "IDLE_S", 0.0)
        await post(sender, receiver)
        await eventually(lambda: receiver.open == 0, "it was idle for too long")
        monkeypatch.setattr(sender_module, "AGE_MAX_S", 0.0)
        await post(sender, receiver)
        await eventually(lambda: receiver.open == 0, "it is too old")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\n\r\n" + status(201), 201),
        (status(302, "location: http://127.0.0.1:1/"), 302),
    ],
    ids=["no length", "chunks", "interim", "redirect"],
)
async def test_answers_of_all_shapes(answer: bytes, code: int) -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answers.append(answer)
        receiver.closes = True
        assert await post(sender, receiver) == code
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
    ],
    ids=["nothing", "half", "something else", "upgrade", "an endless head"],
)
async def test_what_is_no_answer(answer: bytes) -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answers.append(answer)
        receiver.closes = True
        with pytest.raises(NoAnswer):
            await post(sender, receiver)


async def test_nobody_listens() -> None:
    async with receiving() as receiver:
        pass
    async with sending() as sender:
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await post(sender, receiver)


async def test_another_address_of_the_name_is_tried() -> None:
    rules = Rules(WebhookPolicy(http=True, allow=("127.0.0.0/8",)))
    async with receiving() as receiver:
        resolve = resolving(["127.0.0.2", "127.0.0.1"])  # Nobody listens on the first.
        async with sending(rules=rules, resolve=resolve) as sender:
            target = rules.target(f"http://hook.example:{receiver.port}/")
            assert (await sender.post(target, [], b"")).status == 204


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["fe80::1%1"],
    ],
)
async def test_a_name_that_means_a_forbidden_address_is_not_connected_to(
    addresses: list[str],
) -> None:
    async with (
        receiving() as receiver,
        sending(rules=STRICT, resolve=resolving(addresses)) as sender,
    ):
        target = STRICT.target(f"http://hook.example:{receiver.port}/")
        with pytest.raises(Forbidden):
            await sender.post(target, [], b"")
        assert receiver.connections == 0


async def test_a_name_that_changes_its_meaning_is_checked_each_time() -> None:
    # Two addresses of this machine stand for a public one and a forbidden one.
    async with receiving() as receiver:
        resolve = resolving(["127.0.0.1"], ["127.0.0.2"])
        async with sending(resolve=resolve) as sender:
            target = RULES.target(f"http://hook.example:{receiver.port}/")
            receiver.default = status(200, "connection: close")
            await sender.post(target, [], b"")
            with pytest.raises(Forbidden):
                await sender.post(target, [], b"")
            assert receiver.connections == 1


async def test_the_systems_other_names_for_this_machine_are_forbidden() -> None:
    async with (
        receiving() as receiver,
        sending(rules=STRICT, resolve=sender_module.resolve) as sender,
    ):
        for host in ("localhost", "127.1", "2130706433", "0x7f000001"):
            target = STRICT.target(f"http://{host}:{receiver.port}/")
            with pytest.raises(Forbidden):
                await sender.post(target, [], b"")
        assert receiver.connections == 0


async def test_a_request_that_is_given_up_leaves_no_connection() -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.default = None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await post(sender, receiver)
        await eventually(lambda: receiver.open == 0, "the connection is closed")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for hook.example with its key, which signs itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    path = tmp_path / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    command += ["-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=DNS:hook.example"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "crt").read_bytes())
    return path


@pytest.mark.parametrize(
    ("host", "known", "works"),
    [("hook.example", True, True), ("other.example", True, False), ("hook.example", False, False)],
    ids=["right", "another name", "nobody knows the issuer"],
)
async def test_a_receiver_must_prove_its_name(
    certificate: Path, host: str, known: bool, works: bool
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=str(certificate) if known else None)
    async with receiving(tls) as receiver, sending(tls=trust) as sender:
        target = RULES.target(f"https://{host}:{receiver.port}/")
        if works:
            assert (await sender.post(target, [], b"x")).status == 204
            assert (await sender.post(target, [], b"y")).status == 204
            assert receiver.connections == 1
            assert receiver.requests[0].headers["host"] == f"{host}:{receiver.port}"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await sender.post(target, [], b"x")
            assert receiver.requests == []
