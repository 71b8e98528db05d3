"""The ordered room log and its fan-out.

What is appended in a transaction reaches every member once, in order, without a gap.
"""
