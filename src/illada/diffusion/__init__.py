"""The mathematics of masked (absorbing) diffusion: tensors and callables, no model and no files.

    schedule      alpha(t), how much of a text is still visible at time t, and the weight of the loss
    corruption    clean x_0 -> noisy x_t: which times, which positions
    posterior     noisy x_t -> x_s at an earlier time s < t, given a prediction of x_0
    likelihood    how probable a text is: estimates of the bound on log p(x), and its exact value for short texts

A model enters only as `denoise`, a function from tokens to logits, so that all of this can be tested against an exact
table of probabilities.
"""
