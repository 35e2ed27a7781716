"""hello_service beside its peers: the same two routes, the same upstream, the same trace sink, one core, one run."""
