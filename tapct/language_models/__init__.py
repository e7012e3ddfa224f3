"""Causal language models of `transformers`, frozen: their files, what they say of text, and how they write some."""
