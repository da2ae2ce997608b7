"""What a bundle carries to show that it gives the network's answers."""
