"""What tests share: builders, whole boards, sides of a link, worlds of a part, programs compiled for a test."""
