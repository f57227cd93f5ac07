"""The cache group's state machine: what it holds, applied entry by entry, and that state as bytes.

Sees runs of committed commands and gives back results: no peers, no futures, no terms of anybody's rule.
"""
