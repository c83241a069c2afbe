"""Helper package of the film-recommendation lab."""
