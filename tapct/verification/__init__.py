"""Encoders next to their authors' own code: the comparison, its result in the cache, its picture, its command."""
