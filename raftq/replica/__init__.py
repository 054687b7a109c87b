"""One node's logic, without sockets, clocks or threads of its own.

``replica.Replica`` joins consensus, journal, store and state machine; ``submitter``
turns commands into batches that survive a leader change; ``sequencer`` turns batches
into entries on the leader. Everything from outside comes through ``raftq.runtime``,
``raftq.disk`` and ``raftq.transport.network``, so that the simulator can run it whole.
"""
