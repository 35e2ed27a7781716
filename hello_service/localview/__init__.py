"""Development only: the embedded trace agent, and its traces in the terminal and on a page. `serve` never imports it."""
