AT_ROOT = "at root"
