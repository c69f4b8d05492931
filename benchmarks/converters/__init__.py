"""The converters against the other quantisers, on the same models, data and runtimes.

`__main__` is the command. The steps, each a child process of its own: `prepare` (train, export, data), `ours` and
`peers/` (quantise), `execution` (run every artifact and time it). `comparison` judges; `table` and `picture` show.
"""
