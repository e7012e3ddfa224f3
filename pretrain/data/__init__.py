"""What goes in: scans, the store that is made of them, and the crops, masks and batches that are read from it."""
