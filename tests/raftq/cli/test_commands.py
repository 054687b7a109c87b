"""The commands that need no cluster: exit codes, and errors of one line."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from certificates import Authority, settings
from command_line import CommandLine
from raftq.cli.failure import Exit
from raftq.config import render

ROOT = Path(__file__).parents[3]
SECRET = "0123456789abcdef"
NOWHERE = "http://127.0.0.1:1"


def test_a_good_file_is_said_to_be_good(run: CommandLine) -> None:
    result = run("config", "check", ROOT / "conf/node.toml")
    assert (result.code, result.err) == (Exit.DONE, "")
    assert "n1 of cluster raftq" in result.out


def test_a_bad_file_is_told_whole(run: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[node]\nname = 1\n[log]\nlevel = 2\n")
    result = run("config", "check", path, "--set", "api.pending_max=0")
    assert result.code == Exit.USAGE
    assert [key for key in ("node.name", "log.level", "api.pending_max") if key in result.err] == [
        "node.name",
        "log.level",
        "api.pending_max",
    ]
    assert len(result.err.splitlines()) == 4


def test_certificates_that_a_node_could_not_start_with_are_told(
    run: CommandLine, tmp_path: Path
) -> None:
    authority = Authority()
    authority.node("raftq", "n2").write(tmp_path, "n1")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    path = tmp_path / "x.toml"
    path.write_text(render({"tls": settings(tmp_path, "n1")}))
    result = run("config", "check", path)
    assert result.code == Exit.USAGE
    assert "tls.peer_cert_file" in result.err
    authority.node("raftq", "n1").write(tmp_path, "n1")
    assert run("config", "check", path).code == Exit.DONE


def test_show_prints_a_file_with_overrides_applied_and_the_secret_masked(
    run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFTQ_CLUSTER__SECRET", SECRET)
    result = run("config", "show", ROOT / "conf/node.toml", "--set", "node.zone=b")
    shown = tomllib.loads(result.out)
    assert result.code == Exit.DONE
    assert shown["node"]["zone"] == "b"
    assert shown["cluster"]["secret"] == "********"
    assert SECRET not in result.out


def test_serve_with_a_bad_configuration_does_not_start(run: CommandLine) -> None:
    result = run("serve", "--set", "raft.heartbeat_ms=0")
    assert result.code == Exit.USAGE
    assert "raft.heartbeat_ms" in result.err


@pytest.mark.parametrize("bootstrap", [False, True])
def test_serve_hands_configuration_and_exit_code_through(
    bootstrap: bool, run: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = importlib.import_module("raftq.node")
    calls = []

    def serve(config: object, *, bootstrap: bool) -> int:
        calls.append((config.node.name, bootstrap))
        return 70

    monkeypatch.setattr(node, "run", serve)
    flags = ["--bootstrap"] if bootstrap else []
    assert run("serve", "--set", "node.name=n7", *flags).code == 70
    assert calls == [("n7", bootstrap)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["cluster", "status"],
        ["zones"],
        ["queue", "ls"],
        ["queue", "stats", "q"],
        ["queue", "put", "q", "x"],
        ["queue", "claim", "q"],
        ["queue", "ack", "q", "c"],
        ["queue", "release", "q", "c"],
        ["queue", "peek", "q"],
        ["queue", "bulk", "q", "delete"],
        ["queue", "redrive", "q"],
        ["queue", "job", "q"],
        ["queue", "purge", "q", "--yes"],
        ["queue", "rm", "q", "--yes"],
    ],
)
def test_nobody_there_is_one_line_and_exit_code_three(
    arguments: list[str], run: CommandLine
) -> None:
    result = run(*arguments, "--url", NOWHERE)
    assert result == (
        Exit.UNREACHABLE,
        "",
        f"raftq: cannot reach {NOWHERE}: connection refused\n",
    )


@pytest.mark.parametrize("command", ["purge", "rm"])
def test_what_destroys_asks_and_without_anyone_to_ask_does_nothing(
    command: str, run: CommandLine
) -> None:
    result = run("queue", command, "q", "--url", NOWHERE)
    assert result.code == Exit.USAGE
    assert "--yes" in result.err


@pytest.mark.parametrize(
    "arguments", [["frob"], ["queue", "put"], ["queue", "claim", "q", "--limit", "0"], []]
)
def test_wrong_usage_is_exit_code_two(arguments: list[str], run: CommandLine) -> None:
    assert run(*arguments).code == Exit.USAGE


@pytest.mark.parametrize("group", [[], ["queue"], ["cluster"], ["config"], ["journal"], ["store"]])
def test_every_group_has_help(group: list[str], run: CommandLine) -> None:
    result = run(*group, "--help")
    assert result.code == Exit.DONE
    assert "Usage: raftq" in result.out


@pytest.mark.parametrize("what", [["journal", "inspect"], ["store", "verify"]])
def test_a_directory_that_is_not_there_is_wrong_usage(
    what: list[str], run: CommandLine, tmp_path: Path
) -> None:
    assert run(*what, tmp_path / "none").code == Exit.USAGE
    result = run(*what, tmp_path)
    assert result.code == Exit.FAILED
    assert str(tmp_path) in result.err


def test_the_module_runs_as_the_command_does() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "raftq", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip()


def test_a_node_does_not_carry_the_clients_along() -> None:
    code = "import sys, raftq.cli; print([m for m in ('httpx2', 'rocksdict') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
