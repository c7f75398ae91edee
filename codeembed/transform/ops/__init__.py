"""Operations, one to a file."""
