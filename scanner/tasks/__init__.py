"""Task files of lm-evaluation-harness."""
