"""Decompositions of matrices by products, sums and loops: they run wherever JAX runs.

LAPACK's have no rule for TPUs, and in batches they can wait for each other for ever on CPUs.
"""
