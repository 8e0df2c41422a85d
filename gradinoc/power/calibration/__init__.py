"""Is the judge honest? Simulated studies with known truth: false positives, power, coverage, verdicts.

`cases` holds the scenarios and what is true in them, `power` the stated minimum effects and their formulas, `studies`
simulates and judges, `tables` compares with the bars, `figure` draws. Each bar allows for the Monte-Carlo error of
the number of studies.
"""
