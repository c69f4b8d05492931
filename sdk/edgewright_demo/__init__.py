"""`edgewright demo`: the whole loop once on one machine, with real models, processes, broker and files.

It may import every other package, as the command line does, and is imported by nothing but that.
"""
