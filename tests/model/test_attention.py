import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.model.attention import AttentionLayout, attend, attention_layout, segment_positions

HAS_CUDA = torch.cuda.is_available()


def states(heads: int, length: int, *, batch: int = 1, size: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + heads)
    return 2 * torch.randn(batch, heads, length, size, generator=generator)


# --- positions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "positions"),
    [
        ([0, 0, 0, 0], [0, 1, 2, 3]),
        ([0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 0]),
        ([-1, -1, 0, 0, 0], [0, 1, 0, 1, 2]),
        ([0, 0, -1, -1], [0, 1, 0, 1]),
        ([-1, 0, 1, 1, -1], [0, 0, 0, 1, 0]),
        ([0], [0]),
    ],
)
def test_positions_restart_with_every_segment(segments, positions):
    assert segment_positions(torch.tensor([segments])).tolist() == [positions]


@given(st.lists(st.lists(st.integers(-1, 3), min_size=9, max_size=9), min_size=1, max_size=4))
@settings(max_examples=50)
def test_positions_equal_a_count(rows):
    expected = []
    for row in rows:
        counted = [0]
        for place in range(1, len(row)):
            counted.append(counted[-1] + 1 if row[place] == row[place - 1] else 0)
        expected.append(counted)
    assert segment_positions(torch.tensor(rows)).tolist() == expected


# --- layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_dense_rows_need_no_mask(causal):
    layout = attention_layout(None, causal=causal)
    assert (layout.causal, layout.mask, layout.offsets) == (causal, None, None)


def test_the_mask_is_true_where_query_sees_key():
    mask = attention_layout(torch.tensor([[-1, 0, 0, 1]]), causal=False).mask
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_the_causal_mask_hides_what_is_later():
    mask = attention_layout(torch.tensor([[0, 0, 1, 1]]), causal=True).mask
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_half_precision_on_a_cpu_still_takes_the_mask():
    layout = attention_layout(torch.tensor([[0, 1]]), causal=False, dtype=torch.bfloat16)
    assert layout.mask is not None
    assert layout.offsets is None


# --- attention ----------------------------------------------------------------------------------------------------

SEGMENTS = {
    "dense": [[0] * 9, [0] * 9],
    "packed": [[0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1, 1]],
    "padded": [[0, 0, 0, 0, 0, 0, -1, -1, -1], [-1, -1, 0, 0, 0, 0, 0, 0, 0]],
    "packed and padded": [[-1, 0, 0, 1, 1, 1, 1, -1, -1], [0] * 9],
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", SEGMENTS)
def test_attention_equals_that_by_hand(kind, kv_heads, causal, attention_by_hand):
    segments = torch.tensor(SEGMENTS[kind])
    query = states(4, 9, batch=2)
    key, value = (states(kv_heads, 9, batch=2, seed=seed) for seed in (1, 2))
    mixed = attend(query, key, value, attention_layout(segments, causal=causal))
    expected = attention_by_hand(query.double(), key.double(), value.double(), segments, causal=causal)
    torch.testing.assert_close(mixed.double(), expected, atol=5e-6, rtol=0)


@given(segments=st.lists(st.integers(-1, 2), min_size=7, max_size=7), causal=st.booleans(), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_attention_of_any_segments_is_that_of_each_alone(segments, causal, seed):
    segments = torch.tensor([segments])
    query, key, value = states(2, 7, seed=seed), states(1, 7, seed=seed + 10), states(1, 7, seed=seed + 20)
    mixed = attend(query, key, value, attention_layout(segments, causal=causal))
    for number in segments.unique():
        part = (segments[0] == number).nonzero().flatten()
        alone = attend(query[:, :, part], key[:, :, part], value[:, :, part], AttentionLayout(causal=causal))
        torch.testing.assert_close(mixed[:, :, part], alone, atol=2e-6, rtol=0)


def test_one_segment_behind_a_mask_equals_no_mask():
    """A row numbered 1 throughout takes the mask; the same row numbered 0 does not."""
    query, key, value = states(4, 6), states(2, 6, seed=1), states(2, 6, seed=2)
    for causal in (False, True):
        masked = attention_layout(torch.ones(1, 6, dtype=torch.int64), causal=causal)
        assert masked.mask is not None
        torch.testing.assert_close(
            attend(query, key, value, masked), attend(query, key, value, AttentionLayout(causal=causal))
        )


# --- the GPU's path -----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("kind", ["packed", "padded", "packed and padded"])
def test_varlen_attention_equals_the_mask(kind, kv_heads, causal):
    segments = torch.tensor(SEGMENTS[kind]).repeat_interleave(16, dim=1).cuda()
    tensors = [states(heads, 144, batch=2, size=64, seed=heads).cuda().bfloat16() for heads in (8, kv_heads, kv_heads)]
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        layout = attention_layout(segments, causal=causal, dtype=dtype)
        assert (layout.offsets is None) == (dtype == torch.float32)
        leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        mixed = attend(*leaves, layout)
        mixed.float().pow(2).sum().backward()
        results.append([mixed.float(), *(leaf.grad.float() for leaf in leaves)])
    text = (segments >= 0)[:, None, :, None]
    for packed, masked in zip(*results, strict=True):
        scale = float(masked.abs().max())
        torch.testing.assert_close(packed * text, masked * text, atol=2e-2 * scale, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")
def test_offsets_are_where_segments_begin_and_the_end():
    segments = torch.tensor([[0, 0, 1, 1], [0, 0, 0, -1], [-1, 0, 0, 0]]).cuda()
    layout = attention_layout(segments, causal=False, dtype=torch.bfloat16)
    # the padding of the second row and that of the third touch, and still are two runs
    assert layout.offsets.tolist() == [0, 2, 4, 7, 8, 9, 12]
    assert layout.offsets.dtype == torch.int32
