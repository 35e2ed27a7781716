"""What this service calls: one client for each peer."""
