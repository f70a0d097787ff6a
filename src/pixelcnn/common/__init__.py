"""What every other package may use: checks, files, text, progress. It knows nothing of models."""
