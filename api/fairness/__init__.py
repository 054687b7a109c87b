"""What one account, and what all of them together, may ask of one node.

``gcra`` is a rate limit without a clock; ``allowances`` has one account's limits and what it
uses of them, once it is known who asks; ``admission`` sheds what is too much for the node,
before anything of it is read.
"""
