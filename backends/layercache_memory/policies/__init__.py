"""Eviction policies: who makes room. Found by name through the entry points `layercache.evictions`."""
