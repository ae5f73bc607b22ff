"""Parts of the random-feature attention experiment."""
