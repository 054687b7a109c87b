"""Which replicas there are, and whom to ask next.

Those in the client's zone come first, then those with the shortest measured round
trip. One that failed is not preferred for a while, longer with each failure; one that
said ``Retry-After`` is not asked before that. The addresses given at the start are
never forgotten; those learned from ``/cluster`` are used once the node that was
expected has answered there, since an address can mean something else from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from raftq.client.answers import Cluster

DOWN_FIRST_S = 1.0
DOWN_MAX_S = 30.0
MEASURED_FOR_S = 300.0  # Networks change.
WEIGHT = 0.3  # Of the newest measurement in the average.


class Replica:
    """One address, and how it went there."""

    def __init__(self, url: str, *, given: bool, node: str = "", zone: str = "") -> None:
        self.url = url
        self.given = given
        self.node = node
        self.zone = zone
        self.round_trip_s: float | None = None
        self.measured_s = 0.0
        self.failures = 0
        self.down_until_s = 0.0
        self.not_before_s = 0.0

    def served(self, node: str, zone: str) -> None:
        """It answered."""
        self.failures, self.down_until_s, self.not_before_s = 0, 0.0, 0.0
        self.node = node or self.node
        self.zone = zone or self.zone

    def failed(self, now_s: float) -> None:
        """It could not be reached, or broke off."""
        self.down_until_s = now_s + min(DOWN_FIRST_S * 2**self.failures, DOWN_MAX_S)
        self.failures = min(self.failures + 1, 10)

    def measured(self, now_s: float, seconds: float) -> None:
        """So long took a request that costs a replica nothing."""
        old_s = self.round_trip_s
        self.round_trip_s = seconds if old_s is None else old_s + WEIGHT * (seconds - old_s)
        self.measured_s = now_s


class Replicas:
    """All that are known."""

    def __init__(self, urls: list[str], zone: str | None) -> None:
        self.zone = zone
        self.cluster_id = ""
        self._known = [Replica(checked(url), given=True) for url in dict.fromkeys(urls)]
        if not self._known:
            raise ValueError("no URL of a replica was given")

    def order(self, now_s: float) -> list[Replica]:
        """Those that may be asked, the best first."""
        usable = [r for r in self._known if r.given or r.round_trip_s is not None]
        return sorted(usable, key=lambda replica: self._rank(replica, now_s))

    def to_measure(self, now_s: float) -> list[Replica]:
        """Those whose round trip is not known, or not any more; none that is down."""
        return [
            replica
            for replica in self._known
            if replica.down_until_s <= now_s
            and (replica.round_trip_s is None or now_s - replica.measured_s > MEASURED_FOR_S)
        ]

    def learn(self, cluster: Cluster) -> bool:
        """Take over a view; whether it is of another cluster than before."""
        by_url = {replica.url: replica for replica in self._known}
        known = [replica for replica in self._known if replica.given]
        for member in cluster.members:
            url = member.api_url.rstrip("/")
            replica = by_url.get(url) or Replica(url, given=False)
            replica.node, replica.zone = member.node, member.zone
            if not replica.given:
                known.append(replica)
        self._known = known
        before, self.cluster_id = self.cluster_id, cluster.cluster_id
        return before not in ("", cluster.cluster_id)

    def drop(self, replica: Replica) -> None:
        """Somebody else answers there."""
        self._known = [known for known in self._known if known is not replica]

    def _rank(self, replica: Replica, now_s: float) -> tuple[float, bool, bool, float]:
        round_trip_s = replica.round_trip_s
        return (
            max(replica.not_before_s - now_s, 0.0),
            replica.down_until_s > now_s,
            self.zone is not None and replica.zone != self.zone,
            float("inf") if round_trip_s is None else round_trip_s,
        )


def split(texts: Iterable[str]) -> list[str]:
    """Addresses, of which one text may have several with commas between them."""
    return [url for text in texts for url in text.split(",") if url.strip()]


def checked(url: str) -> str:
    """The address without a slash at the end; ValueError if it is none."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f'"{url}" is not a URL such as http://127.0.0.1:8001')
    return url.strip().rstrip("/")
