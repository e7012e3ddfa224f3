"""The authors' own code next to our adapters, one file an adapter: see `tapct.encoders.authors`."""
