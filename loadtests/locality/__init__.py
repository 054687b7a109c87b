"""``python -m loadtests.locality``: how much work stays in its zone, and what that costs.

Three nodes in three zones with a delay between them, and producers and workers in each zone
that talk to their own node. For each delay the cluster's capacity is measured, and then both
ways to claim at 80 % of it, next to each other: ``any``, which takes the oldest message, and
``prefer``, which leaves messages to workers of their own zone for a while.
"""
