"""What claims are judged on: one module for each kind of case, with its builder.

A case has the matrices, and everything about them that takes a decomposition, a projection or a
simulation. Claims only compare.
"""
