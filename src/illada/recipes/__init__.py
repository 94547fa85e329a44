"""Complete runs by name: each function returns a configuration with nothing left open."""
