"""The front ends: protocols over one protocol-neutral service port.

``ports`` says what a front end needs from a node; ``raftq`` provides it. The
native REST API in ``api.rest`` is the first front end, not a privileged one.
"""
