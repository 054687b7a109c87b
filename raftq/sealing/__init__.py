"""Bodies at rest: sealed before they go into the log, opened when they are given out.

Start reading at ``bodies.Bodies``, which is all that the node knows of it. ``DESIGN.md`` says
what it protects from, and what not.
"""
