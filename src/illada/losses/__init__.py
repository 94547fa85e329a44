"""Pure functions from hidden states to losses."""
