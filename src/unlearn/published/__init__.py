"""What published code bases compute where this project differs by default."""
