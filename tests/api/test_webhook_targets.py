"""Where messages may be posted, and in how many ways a forbidden address can be written."""

from __future__ import annotations

import pytest

from api.ports import WebhookPolicy
from api.webhooks.targets import Forbidden, Rules, Target

OPEN = WebhookPolicy(http=True, allow=("127.0.0.0/8", "fd00::/8", "192.0.2.7/32"), ports=(81,))


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",  # noqa: S104 - nobody binds to it.
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "5f00::1",
        "localhost",
        "",
        "0x7f000001",
    ],
)
def test_an_address_that_is_not_public_is_forbidden(text: str) -> None:
    with pytest.raises(Forbidden):
        Rules(WebhookPolicy()).address(text)


@pytest.mark.parametrize(
    ("text", "connected"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("100.63.255.255", "100.63.255.255"),
        ("172.32.0.1", "172.32.0.1"),
        ("192.0.1.1", "192.0.1.1"),
        ("2606:4700::1111", "2606:4700::1111"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("64:ff9b::8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_a_public_address_is_connected_to(text: str, connected: str) -> None:
    assert str(Rules(WebhookPolicy()).address(text)) == connected


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "fd12::1", "192.0.2.7"]
)
def test_what_the_configuration_allows_is_connected_to(text: str) -> None:
    assert Rules(OPEN).address(text)


@pytest.mark.parametrize("text", ["10.0.0.1", "192.0.2.8", "::1", "169.254.169.254"])
def test_and_nothing_else_is(text: str) -> None:
    with pytest.raises(Forbidden):
        Rules(OPEN).address(text)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook.example.com/x",
        "//hook.example.com/x",
        "http://hook.example.com/x",
        "HTTP://hook.example.com/x",
        "ftp://hook.example.com/x",
        "file:///etc/passwd",
        "gopher://hook.example.com/",
        "https://",
        "https:///x",
        "https://user@hook.example.com/",
        "https://user:password@hook.example.com/",
        "https://@hook.example.com/",
        "https://hook.example.com@127.0.0.1/",
        "https://hook.example.com/#part",
        "https://hook.example.com/#",
        "https://hook.example.com:22/",
        "https://hook.example.com:25/",
        "https://hook.example.com:0/",
        "https://hook.example.com:65536/",
        "https://hook.example.com:x/",
        "https://hook.example.com/a b",
        "https://hook.example.com/\r\nx: y",
        "https://hook.example.com\\@127.0.0.1/",
        "https://höok.example.com/",
        "https://hook..example.com/",
        "https://-hook.example.com/",
        "https://hook_%41.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://hook.example.com/" + "x" * 2_048,
    ],
)
def test_a_url_is_forbidden(url: str) -> None:
    with pytest.raises(Forbidden):
        Rules(WebhookPolicy()).target(url)


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://a.example", Target(True, "a.example", 443, "/"), "a.example"),
        ("https://A.example:443/X?y=z", Target(True, "a.example", 443, "/X?y=z"), "a.example"),
        ("https://a.example:80?q", Target(True, "a.example", 80, "/?q"), "a.example:80"),
        ("https://a.example.:8443/", Target(True, "a.example.", 8443, "/"), "a.example.:8443"),
        ("https://8.8.8.8/", Target(True, "8.8.8.8", 443, "/"), "8.8.8.8"),
        (
            "https://[2606:4700::1]:8443/",
            Target(True, "2606:4700::1", 8443, "/"),
            "[2606:4700::1]:8443",
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target, authority: str) -> None:
    found = Rules(WebhookPolicy()).target(url)
    assert (found, found.authority) == (target, authority)


@pytest.mark.parametrize("url", ["http://127.0.0.1:5000/", "https://a.example:81/"])
def test_the_configuration_allows_more_urls(url: str) -> None:
    assert Rules(OPEN).target(url)


def test_a_name_that_only_means_an_address_passes_until_it_is_resolved() -> None:
    # The resolver of the system takes 127.1, 0x7f000001 and 2130706433 for addresses.
    for host in ("127.1", "0x7f000001", "2130706433", "localhost"):
        assert Rules(WebhookPolicy()).target(f"https://{host}/").host == host
