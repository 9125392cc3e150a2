"""What the benchmarks count, and how they divide sets."""
