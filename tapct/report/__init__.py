"""Reports of records: one cell as a page, and its predictions as pictures."""
