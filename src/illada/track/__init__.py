"""What a run tells while it works: metrics to a JSONL file always, to a terminal and to TensorBoard by choice."""
