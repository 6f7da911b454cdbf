"""Reading checkpoints: recognize them, match them with a network, load them without running anything in them."""
