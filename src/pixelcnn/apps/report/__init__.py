"""Reports: the tables and figures of the paper, from trained models."""
