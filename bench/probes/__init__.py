"""What finished cells are asked beyond their score, one probe a file."""
