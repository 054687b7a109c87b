"""Does a node do what /openapi.json says? schemathesis asks it, with all its checks."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from api.access import minting
from cluster import Cluster
from hostile.target import wait_for_key

HERE = Path(__file__).parent
SETTINGS: dict[str, dict[str, object]] = {
    "storage": {"engine": "memory"},
    # Whoever waits for messages, or for events, is answered soon.
    "limits": {"wait_ms_max": 100},
    "encryption": {"keys": f"k1 {base64.b64encode(bytes(32)).decode()}"},
}
COUNTED = re.compile(r"^  (\d+) generated", re.MULTILINE)


class Report(NamedTuple):
    """How a run ended, what it told, and of how many requests."""

    code: int
    text: str
    cases: int


def run(directory: Path, *arguments: str, timeout_s: float) -> Report:
    """Start a node there and ask it, as the operator."""
    key = minting.new_token(minting.new_id())
    settings = SETTINGS | {"auth": {"required": True, "bootstrap_key": key}}
    with Cluster(directory, size=1, settings=settings) as nodes:
        node = nodes.start()["n1"]
        nodes.wait_ready()
        wait_for_key(node, key)
        command = [
            *(sys.executable, "-m", "schemathesis.cli"),
            *("--config-file", str(HERE / "schemathesis.toml"), "run"),
            *(f"{node.api_url}/openapi.json", "--continue-on-failure", "--no-color"),
            *("--header", f"Authorization: Bearer {key}", "--request-timeout", "20"),
            *arguments,
        ]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "form", "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert node.running, node.log
        assert "Traceback" not in node.log, node.log
    counted = COUNTED.search(done.stdout)
    return Report(done.returncode, done.stdout + done.stderr, int(counted[1]) if counted else 0)
