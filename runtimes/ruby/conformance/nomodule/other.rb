# A function without the file that its handler names.
