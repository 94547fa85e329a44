"""What a run will need before it starts: memory, time, disk, and how to divide it among GPUs.

    hardware -> memory (of one GPU, for one division) -> division (that fits) -> plan

Nothing is built and nothing is measured here. `benchmarks/plan_memory.py` compares the memory with measured peaks.
"""
