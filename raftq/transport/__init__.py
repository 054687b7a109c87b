"""Frames between nodes: who may connect, in which order bytes arrive, how much may wait.

``network`` is what node logic sees. ``frames`` and ``handshake`` are pure; sockets
are in ``tcp`` and what it is made of. A frame is opaque here.
"""
