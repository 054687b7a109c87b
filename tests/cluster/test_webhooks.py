"""Messages of a subscription reach their receiver whichever node dies meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cluster import Cluster, until

QUEUE = "/v1/shop/queues/orders"
HOOK = f"{QUEUE}/subscriptions/billing"
ANSWER_S = 0.02
MESSAGES = 150


class Receiver:
    """What has come, by message, and how often."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        self.bodies: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.url = ""

    def take(self, message: str, body: bytes) -> None:
        with self.lock:
            self.got[message] += 1
            self.bodies[message] = body


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a port of its own that takes a little time for each message."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            time.sleep(ANSWER_S)
            receiver.take(self.headers["raftq-message"], body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def owner(cluster: Cluster) -> str | None:
    """Who runs the subscription, as any node says that runs."""
    found: str | None = cluster.running[0].get(HOOK)["node"]
    return found


def put(cluster: Cluster, count: int) -> list[str]:
    node = cluster.running[0]
    answer = node.request(
        "POST", f"{QUEUE}/messages", {"messages": [{"body": number} for number in range(count)]}
    )
    assert answer.status == 201, answer
    ids: list[str] = answer.json()["ids"]
    return ids


def test_when_its_node_dies_another_one_posts_and_nothing_is_lost(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster({"webhooks": {"http": True, "allow": ["127.0.0.1/32"]}})
    with receiving() as receiver:
        asked = {"url": receiver.url, "lease": 2, "concurrency": 2}
        answer = cluster["n1"].request("PUT", HOOK, asked)
        assert answer.status == 201, answer
        ids = put(cluster, MESSAGES)
        until(lambda: len(receiver.got) > 10, "messages arrive")
        first = owner(cluster)
        assert first is not None
        cluster.kill(first)
        before = len(receiver.got)
        assert before < MESSAGES, "it died too late to matter"
        cluster.wait_leader()
        ids += put(cluster, 20)
        until(lambda: owner(cluster) not in (None, first), "another node runs it", 60)
        until(lambda: set(ids) <= set(receiver.got), "everything has arrived", 60)
        stats = f"{QUEUE}/stats"
        nothing = {"ready": 0, "delayed": 0, "claimed": 0}
        until(
            lambda: nothing.items() <= cluster.running[0].get(stats)["messages"].items(),
            "everything is acknowledged",
        )
        assert set(receiver.got) == set(ids)
        twice = [message for message, count in receiver.got.items() if count > 1]
        assert len(twice) <= 2, "only what was under way comes again"
        cluster.start(first).wait_ready()
        ids += put(cluster, 20)
        until(lambda: set(ids) <= set(receiver.got), "it goes on", 60)
        cluster.stop(*[node for node in [owner(cluster)] if node])
        more = put(cluster, 20)
        until(lambda: set(more) <= set(receiver.got), "a node that stops hands over", 60)
