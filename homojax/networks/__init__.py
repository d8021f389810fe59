"""Flax networks with the core's matrices as their mixing, and tasks to train them on: import what you need from its modules."""
