"""Two streams: tokens or images that read, gate or supervise each other."""
