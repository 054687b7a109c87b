"""Whole clusters in one process, on a virtual clock, network and disk, driven by one seed.

Only what ``raftq.runtime``, ``raftq.disk`` and ``raftq.transport.network`` describe is
replaced; everything else is the product itself. Start reading at ``world``, then ``run``.
DESIGN.md beside this file says what is modelled, what is checked, and what is not.
"""
