"""Communication managers: how frames travel between the workers of a run."""
