"""Checkable skills: instruction tasks with exact answers, any amount of them, for training and as a ruler.

    skill, level, draws in [0, 1)  ->  Problem: key, prompt, response        (words, numbers, puzzles)
    key  ->  train or test         (registry: disjoint whatever the amount)

A skill is a small frozen class that turns random numbers into a problem and judges a reply.
"""
