"""The bill of a sweep, before it starts: what would be read, encoded, stored and held, and whether it can be."""
