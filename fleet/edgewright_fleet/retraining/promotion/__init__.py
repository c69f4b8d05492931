"""From a candidate to a release, or not: compared with the model that serves, judged, described, handed over.

`samples → comparison → verdict → ship → handover`; the contracts are the SDK's `Comparison` and `ModelCard`.
"""
