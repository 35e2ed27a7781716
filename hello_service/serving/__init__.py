"""How one process serves: launching, Hypercorn, signals, drain."""
