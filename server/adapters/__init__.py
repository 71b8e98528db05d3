"""What lies outside, each behind an interface of its own."""
