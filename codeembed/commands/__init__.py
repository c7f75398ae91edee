"""What the commands do, one file a topic; ``codeembed.cli`` only declares them."""
