"""What a reader sees: pictures with alternative texts, curves, and claims that are checked."""
