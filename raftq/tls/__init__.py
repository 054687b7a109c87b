"""TLS of one node: what its certificates say, and contexts that follow the files.

``names`` says how a certificate names a node, ``contexts`` makes contexts of files or
says what is wrong with them, ``certificates`` keeps the newest that are whole. Who opens
or accepts a connection asks for the context at that moment: a connection keeps what it
began with, and nothing has to be restarted.
"""
