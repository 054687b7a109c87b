"""The session that people copy works as it stands."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from local_service import LocalService
from raftq.cli import session
from served_api import served


@pytest.mark.skipif(not shutil.which("curl"), reason="the session is one of curl")
@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_session_puts_claims_and_acks(shell: str) -> None:
    with served(LocalService()) as url:
        ran = subprocess.run(
            [shell, "-eu"],
            input=session.text([url] * 3),
            capture_output=True,
            text=True,
            check=True,
        )
    said = ran.stdout.splitlines()
    assert len(said) == 5
    for line, part in zip(
        said,
        ('{"ids":[', '"body":{"resize": "cat.jpg"}', '{"acked":1,', '"ready":0', '"leader":"n1"'),
        strict=True,
    ):
        assert part in line


def test_no_comment_has_a_character_that_means_something_to_a_shell() -> None:
    comments = [line for line in session.TEMPLATE.splitlines() if line.startswith("#")]
    assert len(comments) == 4
    for comment in comments:
        assert not set(comment[1:]) & set("'\"`$();&|<>*?![]{}\\")
