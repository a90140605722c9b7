"""What it costs, as ratios inside one run: ``make bench``."""
