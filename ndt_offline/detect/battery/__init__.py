"""Series whose truth is known: noises, drifts, nulls without a step, positives with planted ones.

`NULLS[name](rng, n)` gives a series, `POSITIVES[name](rng, n, sigmas)` a series and where its
steps are. `validation.validate` runs a detector on all of them.
"""
