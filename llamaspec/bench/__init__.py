"""Measuring settings against each other: what is asked (`workload`) and how it is timed (`paired`)."""
