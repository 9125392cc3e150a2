"""The HTTP API: reads the log, writes labels and specs only; a process of its own."""
