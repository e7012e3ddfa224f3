"""Pictures of scans, features and predictions."""
