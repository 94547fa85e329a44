"""From text to the rows a model is trained on.

sources     paths and specs           -> documents (str)
tokenizer   documents                 -> token ids (byte-level BPE)
shards      token ids                 -> memory-mapped files with a manifest
packing     shards                    -> rows of fixed length, split into segments
loader      rows of several sources   -> batches; resumable, sharded by rank
corpus      all of the above up to the shards, in one call, with a held-out part
"""
