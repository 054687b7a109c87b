"""Worked examples: whole programs around raftq, each run by one command."""
