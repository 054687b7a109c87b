"""Raft on pysyncobj: the core behind its seams, and what makes it safe to use.

``core`` and ``core_log`` are the only modules that touch pysyncobj. ``guard`` decides, purely, what
may reach the core and what it may say. ``consensus`` joins the two with the
durability gates and the pre-vote, and is what the rest of the node talks to.
"""
