"""What is attacked: one node with small limits, two tenants with keys, and a watch on both."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode

from api.access import minting
from cluster import Cluster, Node, until
from hostile.attacks import MY_CLAIM, THEIR_CLAIM, THEIR_ID

TIMEOUT_S = 15.0
SETTINGS: dict[str, dict[str, object]] = {
    "storage": {"engine": "memory"},
    "limits": {
        "body_bytes_max": 20_000,
        "request_bytes_max": 100_000,
        "batch_messages_max": 20,
        "headers_max": 4,
        "header_bytes_max": 500,
        "claim_messages_max": 20,
        "wait_ms_max": 1_000,
        "page_max": 50,
    },
    "api": {
        "head_timeout_s": 1,
        "body_timeout_s": 1,
        "write_timeout_s": 2,
        "keep_alive_s": 3,
    },
}


class Refusal(NamedTuple):
    """What came back before the node hung up, or nothing."""

    status: int  # 0: it hung up without a word.
    head: bytes
    body: bytes

    @property
    def is_problem(self) -> bool:
        return b"content-type: application/problem+json" in self.head

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"]) if self.is_problem else ""


class Target:
    """A node, and what a tenant who is up to no good knows."""

    def __init__(self, node: Node, operator: str) -> None:
        self.node = node
        self.operator = operator
        self.words: dict[bytes, bytes] = {}

    def prepare(self) -> None:
        """Two accounts with a key, a queue, a message, and a message that is claimed, each."""
        for account in ("mine", "theirs"):
            self.asked("PUT", f"/v1/{account}", {}, self.operator)
            roles = ["produce", "consume", "manage"]
            key = self.asked("POST", f"/v1/{account}/keys", {"roles": roles}, self.operator)
            token = key["key"]
            path = f"/v1/{account}/queues/q"
            self.asked("PUT", path, {"lease": 3_600}, token)
            put = self.asked("POST", f"{path}/messages", {"messages": [{"body": 1}] * 2}, token)
            claim = self.asked("POST", f"{path}/claims", {"limit": 1}, token)["claim"]
            own = account.upper().encode()
            self.words[b"{%s_KEY}" % own] = token.encode()
            if account == "theirs":
                self.words[THEIR_ID.encode()] = put["ids"][1].encode()
            which = MY_CLAIM if account == "mine" else THEIR_CLAIM
            self.words[which.encode()] = claim.encode()
        self.words |= forged(self._shared("mine", 60), self._shared("theirs", 60))
        self.words[b"{EXPIRED}"] = self._shared("mine", 0.001).encode()
        self.words[b"{FORGED_KEY}"] = minting.new_token(minting.new_id()).encode()
        self.words[b"{CUT_KEY}"] = self.words[b"{MINE_KEY}"][:-3]

    def asked(self, method: str, path: str, body: object, key: str) -> Any:
        answer = self.node.request(
            method, path, body, headers={"Authorization": f"Bearer {key}"}, timeout_s=TIMEOUT_S
        )
        assert answer.status < 300, (method, path, answer)
        return answer.json() if answer.body else None

    def _shared(self, account: str, seconds: float) -> str:
        """The query that lets whoever has it read the messages of a queue for a while."""
        asked = {"methods": ["GET"], "paths": ["messages"], "expires_in": seconds}
        key = self.words[b"{%s_KEY}" % account.upper().encode()].decode()
        answer = self.asked("POST", f"/v1/{account}/queues/q/share", asked, key)
        return str(answer["query"])

    def filled(self, text: bytes) -> bytes:
        for word, value in self.words.items():
            assert word[1:2].isupper() or len(word) == len(value), word
            text = text.replace(word, value)
        return text

    def told(self, parts: Sequence[bytes], *, half_close: bool = False) -> Refusal:
        """Send these, and read until the node hangs up, or has answered."""
        with socket.create_connection(("127.0.0.1", self.node.api_port)) as plug:
            plug.settimeout(TIMEOUT_S)
            got = b""
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    plug.sendall(self.filled(part))
                if half_close:
                    plug.shutdown(socket.SHUT_WR)
                while not _whole(got) and (part := plug.recv(65_536)):
                    got += part
        return _parsed(got)

    def rss_bytes(self) -> int:
        """What of the node is in memory."""
        status = Path(f"/proc/{self.node.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def alive(self) -> bool:
        return self.node.running and self.node.request("GET", "/livez").status == 200


def forged(mine: str, theirs: str) -> dict[bytes, bytes]:
    """What somebody makes of the signed query that he was given, and of another's."""
    given, other = dict(parse_qsl(mine)), dict(parse_qsl(theirs))
    signature = given["raftq-signature"]
    last = "A" if signature[-1] != "A" else "B"
    made = {
        "SIGNED": given,
        "CUT": given | {"raftq-signature": signature[:-1]},
        "HALVED": given | {"raftq-signature": signature[: len(signature) // 2]},
        "UNSIGNED": given | {"raftq-signature": ""},
        "CHANGED": given | {"raftq-signature": "B" + signature[1:-1] + last},
        "PROLONGED": given | {"raftq-expires": "2099-01-01T00:00:00Z"},
        "WIDENED": given | {"raftq-methods": "GET,POST,DELETE"},
        "ELSEWHERE": given | {"raftq-paths": "messages,claims,stats"},
        "ANOTHERS_KEY": given | {"raftq-key": other["raftq-key"]},
        "ANOTHERS_SIGNATURE": given | {"raftq-signature": other["raftq-signature"]},
        "THEIR_SIGNED": other,
    }
    found = {f"{{{name}}}".encode(): urlencode(query).encode() for name, query in made.items()}
    found[b"{TWICE}"] = f"{mine}&raftq-signature={signature}".encode()
    return found


def _whole(got: bytes) -> bool:
    head, end, body = got.partition(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and bool(length) and len(body) >= int(length[0].split(b":")[1])


def _parsed(got: bytes) -> Refusal:
    if not got:
        return Refusal(0, b"", b"")
    head, _, body = got.partition(b"\r\n\r\n")
    return Refusal(int(head.split(b" ")[1]), head, body)


def wait_for_key(node: Node, key: str) -> None:
    """Until the node has put the key that it was configured with."""
    headers = {"Authorization": f"Bearer {key}"}

    def is_known() -> bool:
        return node.request("GET", "/cluster/keys", headers=headers).status == 200

    until(is_known, "the operator's key is known", TIMEOUT_S)


@contextlib.contextmanager
def target(directory: Path, **sections: dict[str, object]) -> Iterator[Target]:
    """A node of its own."""
    operator = minting.new_token(minting.new_id())
    settings = {name: dict(keys) for name, keys in SETTINGS.items()}
    settings["auth"] = {"required": True, "bootstrap_key": operator}
    for section, keys in sections.items():
        settings.setdefault(section, {}).update(keys)
    with Cluster(directory, size=1, settings=settings) as nodes:
        nodes.start().wait_ready()
        wait_for_key(nodes["n1"], operator)
        found = Target(nodes["n1"], operator)
        found.prepare()
        yield found


class Neighbour:
    """A tenant that puts, claims and acks one message after the other, and takes the time."""

    def __init__(self, target: Target) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", target.node.api_port, timeout=TIMEOUT_S
        )
        self._headers = {"Authorization": "Bearer " + target.words[b"{THEIRS_KEY}"].decode()}
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.took_s: list[float] = []
        self.failed: list[object] = []

    def __enter__(self) -> Self:
        self._ask("PUT", "/v1/theirs/queues/work", {})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()
        self._connection.close()

    def wait_for(self, count: int) -> None:
        give_up_s = time.monotonic() + 60
        while len(self.took_s) < count and time.monotonic() < give_up_s:
            time.sleep(0.05)
        assert len(self.took_s) >= count, self.failed

    def p99_s(self) -> float:
        return statistics.quantiles(self.took_s, n=100)[98]

    def _work(self) -> None:
        path = "/v1/theirs/queues/work"
        try:
            while not self._leave.is_set():
                began_s = time.monotonic()
                self._ask("POST", f"{path}/messages", {"messages": [{"body": "work"}]})
                claim = self._ask("POST", f"{path}/claims", {"limit": 1, "wait": 1})
                self._ask("POST", f"{path}/claims/{claim['claim']}/ack", {})
                self.took_s.append(time.monotonic() - began_s)
                time.sleep(0.01)
        except Exception as error:
            self.failed.append(error)

    def _ask(self, method: str, path: str, body: object) -> Any:
        headers = {**self._headers, "Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (method, path, answer.status, data)
        return json.loads(data) if data else None
