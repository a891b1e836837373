// A function without the module that its handler names.
