"""``python -m loadtests.groups``: what many Raft groups would give, and what they would cost.

Nothing of the product has more than one group; ``docs/groups.md`` is the design. ``placement``
says which group a queue belongs to and which node leads it; ``events``, ``machines``, ``raft``
and ``world`` are a model of nodes with cores, disks and groups, ``costs`` what everything in it
costs, and ``measured`` asks the real thing, which ``experiments`` compares the model with.
"""
