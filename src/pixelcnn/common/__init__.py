"""Tools that every other package may use: checks, files, text, progress bars. Nothing here knows about models."""
