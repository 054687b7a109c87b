"""Posting messages to the URLs of subscriptions: a consumer that lives in the node.

It works through ``api.ports.Service`` alone, as front ends do, and has no privileges that
these lack. Start reading at ``runner``; ``DESIGN.md`` says why things are so.
"""
