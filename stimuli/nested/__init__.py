"""The shipped set `nested`: nouns of a small grammar, whose texts models are trained on."""
