"""Reports: the tables and figures of the paper, reproduced from trained models."""
