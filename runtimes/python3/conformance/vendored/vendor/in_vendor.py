NAME = "in vendor"
