"""Development only: the embedded trace agent, and its traces in terminal and browser. `serve` never imports it."""
