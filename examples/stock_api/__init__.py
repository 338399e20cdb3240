"""A small stock service that shows what a cache in front of a slow market is worth."""
