"""``cxrssl pack``: images are decoded once, into a store that training reads at random."""
