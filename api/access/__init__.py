"""Who asks, and what they may: the same for every front end and every route."""
