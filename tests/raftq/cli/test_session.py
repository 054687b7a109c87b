"""The session that people copy works as it stands."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from access import make_key
from api.ports import AccessPolicy
from local_service import LocalService
from raftq.cli import session
from served_api import served


@pytest.mark.skipif(not shutil.which("curl"), reason="the session is one of curl")
@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_session_puts_claims_and_acks(shell: str, with_key: bool) -> None:
    service = LocalService(access=AccessPolicy(required=with_key))
    key = make_key(service) if with_key else ""
    with served(service) as url:
        ran = subprocess.run(
            [shell, "-eu"],
            input=session.text([url] * 3, key),
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
    lines = [*session.TEMPLATE.splitlines(), *session.KEY.splitlines()]
    comments = [line for line in lines if line.startswith("#")]
    assert len(comments) == 5
    for comment in comments:
        assert not set(comment[1:]) & set("'\"`$();&|<>*?![]{}\\")
