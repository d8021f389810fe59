"""What touches the world: sources of logits, sweeps, stores, figures, reports and the command line."""
