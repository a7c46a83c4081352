"""How a study is declared (`schema`), run (`run`, the eight steps) and shown (`report`)."""
