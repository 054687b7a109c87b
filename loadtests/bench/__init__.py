"""``python -m loadtests.bench``: what three nodes on this machine do, beside baselines.

Every figure stands next to that of an empty Starlette handler measured moments before
with the same client, because a rate without its machine means nothing. ``plan`` says how
much is measured and ``parts`` what; ``records`` is what comes out of it, ``report`` what
is told of it.
"""
