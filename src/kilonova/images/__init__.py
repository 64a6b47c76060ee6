"""The bytes of images: taken in, kept, given out. What is known about images stands in the database."""
