"""Three zones, a producer and workers in each; one zone is cut off, and healed. See README.md."""
