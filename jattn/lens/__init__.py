"""Looking inside: what attention maps say about heads, sinks and positions."""
