"""The replicated core: a pure function from (state, log entry) to (state, outcomes).

Nothing here may read a clock, draw a random number, touch a file or start a
thread: every replica replays the same log, and a replica that can see anything
but the log will sooner or later disagree with its peers. Time and identifiers
arrive inside the entry, stamped once by the leader that appended it.

Start reading at ``machine.Machine.apply``; ``commands`` is the vocabulary,
``outcomes`` the answers, ``keys`` the layout of the store, ``kv`` the only door
to storage.
"""
