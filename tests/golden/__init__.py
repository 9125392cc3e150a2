"""Golden cases: inputs and what is expected of them; only `make golden` writes them."""
