"""The authors' own code beside our adapters, one file an adapter: see `tapct.encoders.authors`."""
