"""What a rewriting did, as facts, and views of these facts for the terminal and for programs."""
