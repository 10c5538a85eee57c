"""The speed of `ablate` beside what users write otherwise, and the cost of its own bookkeeping."""
