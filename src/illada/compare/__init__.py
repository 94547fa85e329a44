"""Controlled comparisons: runs that differ in the fields an arm names alone, and what several seeds allow to say.

    study (data) -> plans -> runs, each in its folder -> measures -> statistics -> results.json, CSV, report.html

A study is a plan of a run, arms that change fields of it by name, seeds, and claims. Whatever an arm does not name is
equal: the data and their order, the start, the optimizer, the schedule, the questions.
"""
