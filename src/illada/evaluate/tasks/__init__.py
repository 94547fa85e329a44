"""The benchmarks: one class for each, from its rows to the verdict on an answer."""
