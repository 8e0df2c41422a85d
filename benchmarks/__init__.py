"""Side by side with other libraries: time and memory, each figure a ratio of medians measured in one run.

`jobs` holds one module a job, `sides` the workers that run this project, `peers` those that run another library in an
environment of its own, `shared` what both kinds of worker import. `workers` starts them and takes turns, `summary`
compares, `figure` draws.
"""
