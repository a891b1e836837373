NAME = "at root"
