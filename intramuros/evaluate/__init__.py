"""What is measured on this machine before it is believed."""
