"""The five minutes in which a newcomer sees the method work: train, measure, write, fill in, solve, report."""
