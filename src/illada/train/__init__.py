"""Training: from a complete configuration to a folder of checkpoints.

    pretrain.run -> corpus, loader, model, objective -> loop.fit: batches -> loss -> AdamW -> metrics, checkpoints

All noise is addressed by example, so the state of a run is its weights, its moments and a few counters: a run that
was killed continues as if it never had been.
"""
