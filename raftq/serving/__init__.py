"""The HTTP server of a node: uvicorn's, behind limits of its own on whoever connects.

``gate`` decides who may have a connection, ``protocol`` what a connection may cost and how
long it may take, ``server`` puts both on the loop. Nothing here knows what a request means.
"""
