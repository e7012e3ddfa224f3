"""Stores that are read from a URL: what is there, what of it is kept on this node, and the store made of both."""
