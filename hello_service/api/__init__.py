"""What clients reach: one module for each group of endpoints."""
