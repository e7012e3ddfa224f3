"""Reports of records: one experiment as a page, and its predictions as pictures."""
