"""The command line: argv in, exit code out. Nothing below this room reads argv or prints on its own."""
