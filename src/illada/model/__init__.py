"""The Transformer: one class, bidirectional or causal.

    tokens, segments -> embedding -> [norm, attention, norm, SwiGLU] x layers -> norm -> hidden states -> logits

`config` names the sizes, `accounting` counts parameters, FLOPs and memory, `rotary`, `attention` and `layers` are the
parts, `transformer` puts them together. The room knows nothing of diffusion: a causal model and a masked diffusion
model differ here in the field `attention` alone.
"""
