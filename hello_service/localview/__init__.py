"""Development only: the embedded trace agent, and what shows its traces. `serve` imports nothing of this."""
