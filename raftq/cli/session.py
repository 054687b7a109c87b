"""A session to copy and paste, as ``raftq dev`` prints it and README.md shows it."""

from __future__ import annotations

from collections.abc import Sequence

# Plain enough for any shell: zsh takes a quote in a comment for the beginning of a string. The
# claim's id is the first thing in the answer, so that nothing in a message can be taken for it.
TEMPLATE = r"""# Put a message, at any replica.
curl -s -X POST {first}/v1/default/queues/jobs/messages \
  -H 'Content-Type: application/json' -d '{{"body": {{"resize": "cat.jpg"}}}}'; echo

# Claim up to ten for 30 seconds, at another replica, and keep the id of the claim.
claimed=$(curl -s -X POST {second}/v1/default/queues/jobs/claims \
  -H 'Content-Type: application/json' -d '{{"limit": 10, "lease": 30, "wait": 5}}')
claim=$(echo "$claimed" | sed 's/^{{"claim":"\([^"]*\)".*/\1/')
echo "$claimed"

# Ack, at the third: the work is done.
curl -s -X POST {third}/v1/default/queues/jobs/claims/$claim/ack; echo

# What is left in the queue, and who is in the cluster.
curl -s {first}/v1/default/queues/jobs/stats; echo
curl -s {first}/cluster; echo
"""


KEY = """# The key of the operator: for curl below, and for all commands of raftq.
export RAFTQ_KEY={key}

"""


def text(urls: Sequence[str], key: str = "") -> str:
    """The session for three replicas; with a key for those that ask for one."""
    first, second, third = urls
    plain = TEMPLATE.format(first=first, second=second, third=third)
    if not key:
        return plain
    return KEY.format(key=key) + plain.replace(
        "curl -s ", 'curl -s -H "Authorization: Bearer $RAFTQ_KEY" '
    )
