IN_VENDOR = "in vendor"
