"""Models as EleutherAI's lm-evaluation-harness meets them; the only room that knows that library."""
