"""``python -m loadtests.bench``: what three nodes on this machine do, beside a baseline.

Every figure stands next to that of an empty Starlette handler measured moments before
with the same client, because a rate without its machine means nothing. ``plan`` says
what is measured, ``cells`` how, ``records`` what comes out of it.
"""
