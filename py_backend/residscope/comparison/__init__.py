"""Two runs side by side: what was written differently, and how it is read differently."""
