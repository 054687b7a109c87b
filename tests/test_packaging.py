"""What is installed, and what the project's files promise about it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

from raftq.cli import session
from raftq.cli.app import EPILOG
from raftq.cli.devfiles import nodes
from raftq.cli.failure import Exit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("package", ["raftq", "api", "statemachine"])
def test_we_alone_provide(package: str) -> None:
    # ``api`` and ``statemachine`` are common names: nobody else may own them in our environment.
    # An editable install lists no packages at all; hence the default.
    assert set(packages_distributions().get(package, ["raftq"])) == {"raftq"}


def test_the_command_is_installed() -> None:
    (point,) = entry_points(group="console_scripts", name="raftq")
    assert callable(point.load())


def test_the_lock_pins_what_the_project_asks_for() -> None:
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    asked += PROJECT["build-system"]["requires"]
    names = {re.split(r"[<>=]", line)[0] for line in asked}
    assert names <= set(re.findall(r"^([\w-]+)==", LOCK, re.MULTILINE))


def test_the_lock_has_a_hash_for_every_pin_and_no_address() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK)
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in LOCK
    assert not re.search(r"^-", LOCK, re.MULTILINE)


def test_the_readme_shows_the_session_that_the_development_cluster_prints() -> None:
    assert session.text([node.api_url for node in nodes(8001)]) in README


def test_every_exit_code_is_documented() -> None:
    for code in Exit:
        assert re.search(rf"\b{code.value} \w", EPILOG), code
        assert f"| {code.value} |" in README, code


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make (\S+)", shown, re.MULTILINE) == declared[1].split()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_links_of_the_readme_lead_somewhere(link: str) -> None:
    assert "://" in link or (ROOT / link).exists()
