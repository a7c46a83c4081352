"""The shipped set `concepts`: words of ten categories, fully crossed with ten sentence frames."""
