"""What the commands do, one file a topic; ``mmembed.cli`` only declares them."""
