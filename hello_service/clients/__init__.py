"""The services that this service calls: one client for each."""
