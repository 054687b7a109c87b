"""The configuration: one file, three ways to override it, and every fault told at once."""

from __future__ import annotations

import json
import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from raftq.config import Config, ConfigError, load, masked, render
from raftq.config.rules import ENTRY_BYTES_MAX
from statemachine.commands import NewMessage
from statemachine.state import ORDINAL_BITS

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef"
OIDC = ["oidc.issuer=https://id.example", "oidc.audience=raftq"]
ROOM = ["raft.peer_window_bytes=16777216", "storage.segment_bytes=33554432"]
CLEAR = "[tls]\nplain_peers_anywhere = true\n"
MEMBERS = f"""
{CLEAR}
[[cluster.members]]
name = "n1"
zone = "a"
peer = "10.0.0.1:9001"
api_url = "http://10.0.0.1:8001"
[[cluster.members]]
name = "n2"
zone = "b"
peer = "10.0.0.2:9001"
api_url = "http://10.0.0.2:8001"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "node.toml"
    path.write_text(text)
    return path


def faults(path: Path | None, environ: dict[str, str] | None = None, *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ, sets)
    return list(caught.value.problems)


def test_the_example_file_has_every_key_with_its_default() -> None:
    example = tomllib.loads((ROOT / "conf/node.toml").read_text())
    defaults = json.loads(msgspec.json.encode(Config()))
    assert example == defaults
    assert json.dumps(example) == json.dumps(defaults), "the order differs"


def test_the_example_file_explains_every_key() -> None:
    lines = (ROOT / "conf/node.toml").read_text().splitlines()
    keys = [(above, line) for above, line in pairwise(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) > 30
    assert [line for above, line in keys if not above.startswith("# ")] == []


def test_the_example_file_is_valid_and_means_the_defaults(tmp_path: Path) -> None:
    example = load(written(tmp_path, (ROOT / "conf/node.toml").read_text()))
    assert example == load(written(tmp_path, ""))


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_the_files_for_three_nodes_agree(name: str, tmp_path: Path) -> None:
    for file in (ROOT / "conf/cluster-3").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    secret = tmp_path / "cluster.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    config, first = load(tmp_path / f"{name}.toml"), load(tmp_path / "n1.toml")
    assert config.node.name == name
    assert config.fingerprint() == first.fingerprint()
    listed = {member.name: member for member in config.cluster.members}[name]
    assert (listed.peer, listed.zone) == (config.node.peer_listen, config.node.zone)
    assert listed.api_url == config.node.api_url == f"http://{config.node.api_listen}"


def test_file_environment_and_flag_override_each_other_in_this_order(tmp_path: Path) -> None:
    path = written(tmp_path, '[node]\nname = "file"\nzone = "file"\ndata_dir = "/file"\n')
    environ = {"RAFTQ_NODE__ZONE": "env", "RAFTQ_NODE__DATA_DIR": "/env", "RAFTQ_URL": "x"}
    node = load(path, environ, ["node.data_dir=/flag"]).node
    assert (node.name, node.zone, node.data_dir) == ("file", "env", "/flag")


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("raft.heartbeat_ms=50", "raft", "heartbeat_ms", 50),
        ("raft.heartbeat_ms = 50", "raft", "heartbeat_ms", 50),
        ('api.frontends=["rest", "sqs"]', "api", "frontends", ("rest", "sqs")),
        ("node.name=007", "node", "name", "007"),
        ("log.format=json", "log", "format", "json"),
        ("limits.page_max=7", "limits", "page_max", 7),
        ('api.cors_origins=["https://a.example"]', "api", "cors_origins", ("https://a.example",)),
        ('webhooks.allow=["10.0.0.0/8"]', "webhooks", "allow", ("10.0.0.0/8",)),
        ("node.zone=a=b", "node", "zone", None),
    ],
)
def test_values_outside_the_file_are_strings_toml_or_json(
    text: str, section: str, key: str, value: object
) -> None:
    if value is None:
        assert len(faults(None, None, text)) == 1
        return
    assert getattr(getattr(load(None, None, [text]), section), key) == value


@pytest.mark.parametrize(
    "members",
    [
        '[{"name": "n1", "peer": "localhost:1", "api_url": "http://h:2"}]',
        '[{name = "n1", peer = "localhost:1", api_url = "http://h:2"}]',
    ],
)
def test_members_may_come_from_the_environment(members: str) -> None:
    config = load(None, {"RAFTQ_CLUSTER__MEMBERS": members})
    assert config.cluster.members[0].peer == "localhost:1"
    assert config.node.api_url == "http://h:2"


def test_every_fault_is_told_with_its_key_and_origin(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[node]\nzome = "a"\napi_listen = "nowhere"\n[raft]\nheartbeat_ms = "fast"\n'
        "[limits]\nbody_bytes_max = -1\npages = 1\n[nodes]\n"
        '[[cluster.members]]\nname = "n2"\npeer = 5\napi_urll = "x"\n',
    )
    found = faults(path, {"RAFTQ_LOG__LEVEL": "loud", "RAFTQ_LOG__COLOR": "1"}, "api.pending_max=0")
    told = {problem.partition(":")[0]: problem for problem in found}
    assert sorted(told) == [
        "api.pending_max",
        "cluster.members[0].api_url",
        "cluster.members[0].api_urll",
        "cluster.members[0].peer",
        "limits.body_bytes_max",
        "limits.pages",
        "log.color",
        "log.level",
        "node.api_listen",
        "node.zome",
        "nodes",
        "raft.heartbeat_ms",
    ]
    assert 'did you mean "node.zone"?' in told["node.zome"]
    assert str(path) in told["raft.heartbeat_ms"]
    assert "RAFTQ_LOG__LEVEL" in told["log.level"]
    assert "debug, info, warning, error" in told["log.level"]


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["raft.election_timeout_min_ms=299"], "raft.election_timeout_min_ms"),
        (["raft.election_timeout_max_ms=500"], "raft.election_timeout_max_ms"),
        (["raft.leader_fallback_ms=299"], "raft.leader_fallback_ms"),
        (["raft.request_timeout_ms=1000"], "raft.request_timeout_ms"),
        (["raft.peer_window_bytes=8388607"], "raft.peer_window_bytes"),
        (["storage.segment_bytes=16777215"], "storage.segment_bytes"),
        (["raft.entry_bytes_max=8388609", *ROOM], "raft.entry_bytes_max"),
        (["limits.request_bytes_max=4194305"], "limits.request_bytes_max"),
        (["limits.body_bytes_max=4194305"], "limits.body_bytes_max"),
        (["limits.page_max=0"], "limits.page_max"),
        (["api.pending_bytes_max=8388607"], "api.pending_bytes_max"),
        (["api.bodies_bytes_max=8388607"], "api.bodies_bytes_max"),
        (["fairness.requests_per_s=-1"], "fairness.requests_per_s"),
        (["fairness.requests_burst=5"], "fairness.requests_burst"),
        (["fairness.accounts={a={bytes_burst=5}}"], "fairness.accounts"),
        (["fairness.accounts={a={speed=5}}"], "fairness.accounts"),
        (["fairness.accounts={a={parked_max=-5}}"], "fairness.accounts"),
        ([*OIDC, "auth.required=false"], "oidc.issuer"),
        ([*OIDC, "oidc.issuer=http://id.example"], "oidc.issuer"),
        ([*OIDC, "oidc.jwks_url=http://id.example/keys"], "oidc.jwks_url"),
        ([*OIDC, "oidc.audience="], "oidc.audience"),
        ([*OIDC, "oidc.algorithms=[]"], "oidc.algorithms"),
        ([*OIDC, 'oidc.algorithms=["HS256"]'], "oidc.algorithms"),
        ([*OIDC, 'oidc.algorithms=["none"]'], "oidc.algorithms"),
        ([*OIDC, "oidc.roles_claim="], "oidc.roles_claim"),
        ([*OIDC, "oidc.leeway_s=301"], "oidc.leeway_s"),
        ([*OIDC, "oidc.retry_s=0"], "oidc.retry_s"),
        (["node.peer_listen=127.0.0.1:8001"], "node.peer_listen"),
        (["node.peer_listen=127.0.0.1"], "node.peer_listen"),
        (["node.peer_listen=::1:9001"], "node.peer_listen"),
        (["node.api_listen=127.0.0.1:65536"], "node.api_listen"),
        (["node.api_listen=127.0.0.1:0"], "node.api_listen"),
        (["node.api_url=ftp://host"], "node.api_url"),
        (["node.api_url=http://host/"], "node.api_url"),
        (["node.name=.hidden"], "node.name"),
        (["node.name="], "node.name"),
        (["node.data_dir="], "node.data_dir"),
        (["api.frontends=[]"], "api.frontends"),
        (['api.cors_origins=["*"]'], "api.cors_origins"),
        (['api.cors_origins=["console.example.com"]'], "api.cors_origins"),
        (['api.cors_origins=["https://a.example/"]'], "api.cors_origins"),
        (['api.cors_origins=["https://["]'], "api.cors_origins"),
        (['api.cors_origins=["https://a@b.example"]'], "api.cors_origins"),
        (["api.head_timeout_s=0"], "api.head_timeout_s"),
        (["cluster.secret=fifteen-bytes-x"], "cluster.secret"),
        (["cluster.leader_zones={a=0}"], "cluster.leader_zones"),
        (["cluster.leader_zones={a=-1.5}"], "cluster.leader_zones"),
        (['cluster.leader_zones={".a"=1}'], "cluster.leader_zones"),
        (["cluster.leader_zones=a"], "cluster.leader_zones"),
        ([f"cluster.secret={SECRET}", "cluster.secret_file=x"], "cluster.secret"),
        (["cluster.secret_file=/does/not/exist"], "cluster.secret_file"),
        (["no.such=1"], "no"),
        (["node"], "--set node"),
    ],
)
def test_a_broken_rule_is_told_under_its_key(sets: list[str], key: str) -> None:
    assert [problem.split(": ")[0] for problem in faults(None, None, *sets)] == [key]


@pytest.mark.parametrize(
    "sets",
    [
        ["raft.election_timeout_min_ms=300"],
        ["raft.election_timeout_max_ms=501"],
        ["storage.segment_bytes=16777216"],
        ["raft.entry_bytes_max=8388608", *ROOM],
        ["limits.request_bytes_max=4194304"],
        ["api.pending_bytes_max=8388608", "api.bodies_bytes_max=8388608"],
        ["fairness.bytes_per_s=1", "fairness.accounts={a={bytes_burst=5,parked_max=0}}"],
        OIDC,
        [*OIDC, "oidc.issuer=http://127.0.0.1:8080", "oidc.jwks_url=https://id.example/keys"],
        ["node.peer_listen=[::1]:9001"],
        ["node.api_url=https://queue.example"],
        ["cluster.secret=sixteen-bytes-xx"],
    ],
)
def test_the_edges_of_the_rules_are_allowed(sets: list[str]) -> None:
    load(None, None, sets)


def test_the_largest_entry_has_an_id_for_each_of_its_messages() -> None:
    smallest = len(msgspec.msgpack.encode(NewMessage(b"", "")))
    assert ENTRY_BYTES_MAX // smallest <= 1 << ORDINAL_BITS


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("", ""), "cluster.secret_file"),
        (("n2", "n1"), "cluster.members[1].name"),
        (("10.0.0.2:9001", "10.0.0.1:9001"), "cluster.members[1].peer"),
        (("http://10.0.0.2:8001", "http://10.0.0.1:8001"), "cluster.members[1].api_url"),
        (('peer = "10.0.0.2:9001"\n', ""), "cluster.members[1].peer"),
        (('name = "n1"', 'name = "n0"'), "node.name"),
        (("[[cluster", '[node]\nzone = "b"\n[[cluster'), "node.zone"),
        (("[[cluster", "[cluster]\nleader_zones = {c = 1}\n[[cluster"), "cluster.leader_zones"),
        (("[[cluster", '[node]\napi_url = "http://x"\n[[cluster'), "node.api_url"),
    ],
)
def test_members_must_fit_together(change: tuple[str, str], key: str, tmp_path: Path) -> None:
    secret = () if key == "cluster.secret_file" else (f"cluster.secret={SECRET}",)
    path = written(tmp_path, MEMBERS.replace(*change, 1) if change[0] else MEMBERS)
    assert [problem.split(": ")[0] for problem in faults(path, None, *secret)] == [key]


def test_what_is_left_out_is_filled_in_from_the_members(tmp_path: Path) -> None:
    config = load(written(tmp_path, MEMBERS), None, ["node.name=n2", f"cluster.secret={SECRET}"])
    assert (config.node.zone, config.node.api_url) == ("b", "http://10.0.0.2:8001")
    assert config.node.data_dir == str(tmp_path / "data")


def test_a_node_without_members_is_a_cluster_of_one() -> None:
    config = load(None)
    (me,) = config.cluster.members
    assert (me.name, me.peer, me.zone) == ("n1", "127.0.0.1:9001", "default")
    assert config.node.data_dir == os.path.abspath("data")


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_secret_is_read_from_a_private_file(mode: int, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(f"{SECRET}\n")
    (tmp_path / "s").chmod(mode)
    config = load(written(tmp_path, '[cluster]\nsecret_file = "s"\n'))
    assert config.cluster.secret == SECRET


@pytest.mark.parametrize(
    ("mode", "text", "why"),
    [
        (0o604, SECRET, "mode 0604"),
        (0o660, SECRET, "mode 0660"),
        (0o600, "short", "less than 16 bytes"),
    ],
)
def test_a_secret_others_can_get_at_is_refused(
    mode: int, text: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text(text)
    (tmp_path / "s").chmod(mode)
    (problem,) = faults(written(tmp_path, '[cluster]\nsecret_file = "s"\n'))
    assert why in problem


def test_the_secret_is_never_shown() -> None:
    config = load(None, None, [f"cluster.secret={SECRET}"])
    assert SECRET not in repr(config)
    assert SECRET not in render(msgspec.to_builtins(masked(config)))
    assert SECRET not in str(faults(None, None, f"cluster.secret={SECRET}", "node.name=."))


def test_the_fingerprint_covers_what_nodes_share_and_nothing_else() -> None:
    members = '[{"name": "n1", "peer": "localhost:1", "api_url": "http://h:2"}]'
    base = [f"cluster.members={members}"]
    mine = load(None, None, base).fingerprint()
    for same in ("node.data_dir=/x", "storage.engine=memory", "log.level=debug"):
        assert load(None, None, [*base, same]).fingerprint() == mine
    secret = f"cluster.secret={SECRET}"
    assert load(None, None, [*base, secret]).fingerprint() == mine
    for other in (
        "cluster.name=x",
        "raft.heartbeat_ms=99",
        "limits.page_max=9",
        "cluster.leader_zones={default=1}",
    ):
        assert load(None, None, [*base, other]).fingerprint() != mine


def test_the_order_of_members_does_not_matter(tmp_path: Path) -> None:
    first, second = MEMBERS.split("[[")[1:]
    sets = [f"cluster.secret={SECRET}", "tls.plain_peers_anywhere=true"]
    there = load(written(tmp_path, f"[[{first}[[{second}"), None, sets)
    back = load(written(tmp_path, f"[[{second}[[{first}"), None, sets)
    assert there.fingerprint() == back.fingerprint()


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    awkward = tmp_path / 'a "b" \\ \u00e9 \U0001f600 \x7f'
    weights = 'cluster.leader_zones={"a": 2, "b": 1}'
    sets = [f"cluster.secret={SECRET}", f"node.data_dir={awkward}", weights]
    config = load(written(tmp_path, MEMBERS), None, sets)
    again = load(written(tmp_path, render(msgspec.to_builtins(config))))
    assert again == config
    assert again.cluster.leader_zones == {"a": 2, "b": 1}


@pytest.mark.parametrize("text", ["[node", "node = 1\n", "[node]\nname = 1\n"])
def test_rubbish_is_a_readable_fault(text: str, tmp_path: Path) -> None:
    assert len(faults(written(tmp_path, text))) == 1


def test_a_missing_file_is_a_readable_fault(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == [f"{tmp_path / 'none.toml'}: no such file"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('webhooks.allow=["10.0.0.1/8"]', "webhooks.allow"),
        ('webhooks.allow=["localhost"]', "webhooks.allow"),
        ("webhooks.ports=[0]", "webhooks.ports"),
        ("webhooks.ports=[65536]", "webhooks.ports"),
        ("webhooks.requests_max=0", "webhooks.requests_max"),
    ],
)
def test_where_webhooks_may_go_is_checked(text: str, key: str) -> None:
    (fault,) = faults(None, None, text)
    assert fault.startswith(f"{key}: ")


API = ["tls.api_cert_file=c.pem", "tls.api_key_file=c.key"]
PEER = ["tls.peer_cert_file=c.pem", "tls.peer_key_file=c.key", "tls.peer_ca_file=c.pem"]


@pytest.fixture
def with_files(tmp_path: Path) -> Path:
    """A configuration, beside files that look right to who does not parse them."""
    (tmp_path / "c.pem").write_text("certificate")
    (tmp_path / "c.key").touch(mode=0o600)
    return written(tmp_path, "")


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (API[:1], "tls.api_key_file"),
        (API[1:], "tls.api_cert_file"),
        (["tls.api_client_ca_file=c.pem"], "tls.api_cert_file"),
        (PEER[:2], "tls.peer_ca_file"),
        ([PEER[0], PEER[2]], "tls.peer_key_file"),
        (PEER[1:], "tls.peer_cert_file"),
        ([*API, "tls.api_client_ca_file=none"], "tls.api_client_ca_file"),
        ([*PEER[:2], "tls.peer_ca_file=none"], "tls.peer_ca_file"),
        ([*API, "node.api_url=http://x"], "node.api_url"),
        (["node.api_listen=10.0.0.1:8001", "auth.required=true"], "node.api_listen"),
        (["node.api_listen=example.org:8001", "auth.required=true", *PEER], "node.api_listen"),
        (["node.peer_listen=[::]:9001"], "node.peer_listen"),
        (["node.peer_listen=10.0.0.1:9001", *API], "node.peer_listen"),
        (["tls.check_interval_ms=0"], "tls.check_interval_ms"),
    ],
)
def test_certificates_are_whole_and_nothing_leaves_in_the_clear(
    sets: list[str], key: str, with_files: Path
) -> None:
    told = faults(with_files, None, *sets)
    assert {problem.split(":")[0] for problem in told} >= {key}


@pytest.mark.parametrize(
    "sets",
    [
        API,
        [*API, "node.api_listen=0.0.0.0:8001"],
        [*PEER, "node.peer_listen=0.0.0.0:9001"],
        ["node.api_listen=[::]:8001", "tls.plain_http_anywhere=true"],
        ["node.peer_listen=h:9001", "tls.plain_peers_anywhere=true"],
        ["node.api_listen=localhost:8001", "node.peer_listen=127.9.9.9:9001"],
    ],
)
def test_tls_or_loopback_or_leave_to_do_without(sets: list[str], with_files: Path) -> None:
    config = load(with_files, None, [*sets, "auth.required=true"])
    assert config.node.api_url.startswith("https:" if sets[0] in API else "http:")
    assert config.tls.api_cert_file in ("", str(with_files.parent / "c.pem"))


def test_a_member_in_the_clear_elsewhere_is_refused_and_named(tmp_path: Path) -> None:
    path = written(tmp_path, MEMBERS.replace(CLEAR, ""))
    (problem,) = faults(path, None, f"cluster.secret={SECRET}")
    assert problem.startswith('cluster.members[0].peer: "10.0.0.1:9001" is not on loopback')


def test_of_a_node_under_tls_the_members_say_https(with_files: Path) -> None:
    members = '[{"name": "n1", "peer": "localhost:1", "api_url": "http://x"}]'
    (problem,) = faults(with_files, None, f"cluster.members={members}", *API)
    assert problem.startswith('cluster.members[0].api_url: "http://x"')


@pytest.mark.parametrize("name", ["api_key_file", "peer_key_file"])
def test_a_key_that_others_can_read_is_refused(name: str, with_files: Path) -> None:
    key = with_files.with_name("c.key")
    key.chmod(0o644)
    (problem,) = faults(with_files, None, *(API if name == "api_key_file" else PEER))
    assert problem.startswith(f"tls.{name}: {key} has mode 0644")
