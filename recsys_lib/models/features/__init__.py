"""Features of a user-item pair: those of the neural hybrid (``pairs``) and those of the re-ranker (``candidates``)."""
