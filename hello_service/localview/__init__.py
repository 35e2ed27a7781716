"""Development only: the embedded trace agent, and the terminal and web views of its traces. `serve` never imports it."""
